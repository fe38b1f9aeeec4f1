// Asks the web process, which asks the daemon. A token goes in a header, never in an address.
export class ApiError extends Error {
  // `status` is 0 when nobody answered; `problems` of a configuration: where, key, message, hint.
  constructor(status, message, problems = null) {
    super(message);
    Object.assign(this, { status, problems });
  }
}

const KEY = "polywan.token";

// A link may bring a token in its fragment: it is read once and taken out of the address bar.
export function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found === null) return;
  sessionStorage.setItem(KEY, found);
  history.replaceState(null, "", location.pathname + location.search);
}

export const api = {
  get token() {
    return sessionStorage.getItem(KEY) || "";
  },
  set token(value) {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
    api.onToken();
  },
  onToken() {},
  // Path of a call of an uplink: api.uplink("fibre", "effect").
  uplink: (name, call) => `/v1/uplinks/${name.split("/").map(encodeURIComponent).join("/")}/${call}`,
  get: (path, params) => ask("GET", path, params),
  // `body` is what the call describes as JSON object, {} where there is none; `params` are words of the query.
  post: (path, body = {}, params = {}) => ask("POST", path, params, body),
  whoami: () => ask("GET", null),
  // The body of an answer that does not end; throws ApiError.
  async stream(path, signal) {
    return (await send(`api${path}`, { headers: headers(), signal, cache: "no-store" })).body;
  },
};

function headers(more = {}) {
  return api.token ? { Authorization: `Bearer ${api.token}`, ...more } : more;
}

async function ask(method, path, params = {}, body) {
  const words = new URLSearchParams(
    Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== ""),
  ).toString();
  const address = (path === null ? "api/whoami" : `api${path}`) + (words ? `?${words}` : "");
  const options = { method, headers: headers(), cache: "no-store" };
  if (method === "POST") {
    options.headers = headers({ "Content-Type": "application/json", "X-Polywan": "1" });
    options.body = JSON.stringify(body);
  }
  const answer = await send(address, options);
  try {
    return await answer.json();
  } catch (error) {
    throw new ApiError(0, String(error.message));
  }
}

async function send(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    throw new ApiError(0, String(error.message));
  }
  if (answer.ok) return answer;
  const refusal = await answer.json().catch(() => ({}));
  throw new ApiError(answer.status, refusal.error || answer.statusText || String(answer.status), refusal.problems || null);
}
