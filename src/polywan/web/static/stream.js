// Follows the daemon: one stream, read by fetch so that the token goes in a header, opened again when it ends.
const SILENT = 3000; // milliseconds without a sample after which what is shown is called stale
const DEAD = 10000; // of silence after which another connection is made
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15000;

// Returns a function that opens the stream anew, such as with another token.
export function follow(store, api) {
  let attempt = 0;
  let failures = 0;
  let timer = null;
  let abort = null;

  async function connect() {
    clearTimeout(timer);
    abort?.abort();
    if (document.hidden) return store.set({ stale: "paused", retry: null });
    const mine = ++attempt;
    abort = new AbortController();
    const opened = Date.now();
    let trouble = null;
    store.set({ stale: store.state.heard ? "lost" : "connecting", retry: null });
    const watch = setInterval(() => {
      const silent = Date.now() - Math.max(opened, store.state.heard || 0);
      if (silent > SILENT && store.state.stale === null) store.set({ stale: "lost" });
      if (silent > DEAD) abort.abort();
    }, 250);
    try {
      const body = await api.stream("/v1/stream", abort.signal);
      await read(body, (name, data) => {
        if (name === "sample") failures = 0;
        store.take(name, data);
      });
    } catch (error) {
      trouble = error.status ? { status: error.status, message: error.message } : null;
    }
    clearInterval(watch);
    if (mine === attempt) again(trouble);
  }

  function again(trouble) {
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures) * (0.8 + 0.4 * Math.random());
    failures += 1;
    const denied = trouble && (trouble.status === 401 || trouble.status === 403);
    store.set({ stale: denied ? "refused" : "lost", refusal: trouble, retry: Date.now() + wait });
    timer = setTimeout(connect, wait);
  }

  function now() {
    failures = 0;
    connect();
  }

  document.addEventListener("visibilitychange", now);
  window.addEventListener("online", now);
  connect();
  return now;
}

// Server-sent events (HTML Living Standard 9.2), as far as the daemon uses them.
async function read(body, take) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "";
      let data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("data:")) data += line.slice(5).trimStart();
      }
      if (data) take(name, JSON.parse(data));
    }
  }
}
