// What happened to the uplinks: the journal, newest first, and what happens meanwhile.
import { html, useRef, useState, useStore } from "./ui.js";
import { Failure, useAnswer, useSeen } from "./parts.js";
import { Icon, toneOf, wordOf } from "./states.js";

const SPANS = ["", "1h", "24h", "7d", "30d"];
const MOST_PAGES = 10;
const REFRESH_S = 60;

export function Events({ store, api, t, fmt }) {
  const { status, entries } = useStore(store, "status", "entries");
  const box = useRef(null);
  const seen = useSeen(box);
  const [uplink, setUplink] = useState("");
  const [span, setSpan] = useState("");
  const { answer, error } = useAnswer(() => journal(api, uplink, span), seen, REFRESH_S, [uplink, span]);
  const of = (some) => (some ?? []).filter((entry) => !uplink || entry.uplink === uplink);
  const listed = merged(of(answer?.events), of(entries));
  const known = [...(status?.uplinks ?? []).map((each) => each.name), ...listed.map((each) => each.uplink), uplink];
  const names = [...new Set(known)].filter(Boolean);
  return html`<div ref=${box} class="s-events">
    <form class="s-filter" onSubmit=${(event) => event.preventDefault()}>
      <label>${t("events.uplink")}
        <select value=${uplink} onChange=${(e) => setUplink(e.target.value)}>
          <option value="">${t("events.all")}</option>
          ${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        </select></label>
      <label>${t("events.span")}
        <select value=${span} onChange=${(e) => setSpan(e.target.value)}>
          ${SPANS.map((each) => html`<option key=${each} value=${each}>${t(`events.span_${each || "last"}`)}</option>`)}
        </select></label>
    </form>
    <${Failure} error=${error} t=${t} />
    ${answer?.problem && html`<p class="s-warning">${t("events.incomplete")} <span lang="en">${answer.problem}</span></p>`}
    ${answer?.more && html`<p class="s-warning">${t("events.more")}</p>`}
    ${answer && !listed.length && html`<p class="s-none">${t("events.none")}</p>`}
    <ol class="s-list" tabindex="0" aria-label=${t("events.title")}>
      ${listed.map((entry) => html`<${Entry} key=${entry.id} entry=${entry} t=${t} fmt=${fmt} />`)}
    </ol>
  </div>`;
}

// The journal's last entries, or those of a span: the daemon hands them out a hundred at a time, oldest first.
async function journal(api, uplink, span) {
  const words = { ...(uplink && { uplink }), ...(span && { since: span }) };
  let part = await api.get("/v1/events", words);
  let events = part.events;
  for (let page = 1; part.more && page < MOST_PAGES; page++) {
    part = await api.get("/v1/events", { ...words, after: part.last, journal: part.journal });
    events = [...events, ...part.events];
  }
  return { ...part, events };
}

// Entries of both lists, each once, newest first.
function merged(recorded, live) {
  const byId = new Map([...recorded, ...live].map((entry) => [entry.id, entry]));
  return [...byId.values()].sort((a, b) => b.id - a.id);
}

function Entry({ entry, t, fmt }) {
  const tone = ["state", "found"].includes(entry.event) ? toneOf({ ...entry, standby: false }) : "idle";
  const also = meanwhile(entry, t, fmt);
  return html`<li class=${`s-event tone-${tone}`}>
    <time datetime=${entry.time} title=${fmt.full(entry.time)}>${fmt.time(entry.time)}</time>
    <${Icon} tone=${tone} />
    <span class="s-what"><strong>${sentence(entry, t, fmt)}</strong>
      ${entry.reason && html`<span lang="en">: ${fmt.text(entry.reason)}</span>`}
      ${also && html` <small>${also}</small>`}</span>
  </li>`;
}

function sentence({ event, uplink: name, state, previous_state: before }, t, fmt) {
  const uplink = fmt.text(name);
  const word = (known) => (known === null ? "–" : wordOf(known, t));
  if (event === "state") return t("events.state", { uplink, state: word(state), before: word(before) });
  if (event === "found") {
    const changed = before !== null && before !== state;
    return t(changed ? "events.found_other" : "events.found", { uplink, state: word(state), before: word(before) });
  }
  return ["address", "renamed", "removed"].includes(event) ? t(`events.${event}`, { uplink }) : `${uplink}: ${event}`;
}

function meanwhile(entry, t, fmt) {
  const parts = [];
  if (entry.lasted_s !== null) parts.push(t("events.lasted", { time: fmt.span(entry.lasted_s) }));
  if (entry.rx_bytes !== null && entry.tx_bytes !== null) {
    parts.push(t("events.moved", { down: fmt.bytes(entry.rx_bytes), up: fmt.bytes(entry.tx_bytes) }));
  }
  return parts.join(" · ");
}
