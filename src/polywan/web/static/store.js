// What the page knows. `state` is read, `set` changes it, and subscribers of the changed keys are called once.
//
// status: as `/v1/status`, kept up to date by the stream; null before the first
// samples: of the last 10 minutes, oldest first: {at: milliseconds, uplinks: {NAME: UplinkSample}}
// entries: of the journal that came while the page was open, oldest first
// scopes, who: what this reader may do ("read", "act"), and the name of the token
// stale: null, or why what is shown may be old: "connecting", "lost", "paused" or "refused"
// heard: when the last snapshot or sample came, milliseconds; retry: when the next attempt is made
// refusal: what the server answered at last, {status, message}, or null
// private: public addresses are hidden
const KEPT = 600;
const MOST_ENTRIES = 500;

export function createStore() {
  const subscribers = new Set();
  let changed = null;
  const store = {
    state: {
      status: null, samples: [], entries: [], scopes: [], who: "",
      stale: "connecting", heard: null, retry: null, refusal: null, private: false,
    },
    set(patch) {
      if (!changed) {
        changed = new Set();
        queueMicrotask(tell);
      }
      for (const key in patch) if (store.state[key] !== patch[key]) changed.add(key);
      store.state = { ...store.state, ...patch };
    },
    // Returns what ends it.
    subscribe(keys, call) {
      const entry = { keys, call };
      subscribers.add(entry);
      return () => subscribers.delete(entry);
    },
    may: (scope) => store.state.scopes.includes(scope),
    // An uplink with what the last sample says of it; `share_seen` is known from samples alone.
    live(uplink) {
      const { samples } = store.state;
      return { share_seen: null, ...uplink, ...samples[samples.length - 1]?.uplinks[uplink.name] };
    },
    // Takes in an event of the stream, or as "past" measurements of what came before the first sample.
    take(name, data) {
      const { status, samples, entries } = store.state;
      if (name === "snapshot") store.set({ status: data, ...fresh() });
      else if (name === "change" && status) store.set({ status: merged(status, data) });
      else if (name === "sample") {
        const at = Date.parse(data.time);
        const kept = samples.filter((sample) => sample.at > at - KEPT * 1000 && sample.at < at);
        store.set({ samples: [...kept, { at, uplinks: data.uplinks }], ...fresh() });
      } else if (name === "past") store.set({ samples: [...earlier(data, samples[0]?.at ?? Date.now()), ...samples] });
      else if (name === "entry") store.set({ entries: [...entries, data].slice(-MOST_ENTRIES) });
    },
  };
  function tell() {
    const keys = changed;
    changed = null;
    for (const entry of [...subscribers]) if (entry.keys.some((key) => keys.has(key))) entry.call();
  }
  return store;
}

// Measurements of every second as samples, so that what is drawn of them begins before the page was opened.
function earlier({ step_s: step, series }, before) {
  const found = new Map();
  for (const { uplink, columns, points } of step === 1 ? series : []) {
    const time = columns.indexOf("time");
    for (const point of points) {
      const at = point[time] * 1000;
      if (at > before - 1000 || point.every((value, column) => column === time || value === null)) continue;
      if (!found.has(at)) found.set(at, { at, uplinks: {} });
      found.get(at).uplinks[uplink] = Object.fromEntries(columns.map((column, n) => [column, point[n]]));
    }
  }
  return [...found.values()].sort((a, b) => a.at - b.at);
}

const fresh = () => ({ heard: Date.now(), stale: null, retry: null, refusal: null });

function merged(status, change) {
  const { uplinks, removed, policies, time, ...rest } = change;
  const news = new Map(uplinks.map((uplink) => [uplink.name, uplink]));
  const kept = status.uplinks.filter((uplink) => !removed.includes(uplink.name));
  const known = new Set(kept.map((uplink) => uplink.name));
  return {
    ...status,
    ...rest,
    policies: policies || status.policies,
    uplinks: [
      ...kept.map((uplink) => news.get(uplink.name) || uplink),
      ...uplinks.filter((uplink) => !known.has(uplink.name)),
    ],
  };
}
