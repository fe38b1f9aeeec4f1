// Tracked connections, a page at a time: the daemon searches, sorts and counts, so that 60 000 of them cost no more here.
import { html, useMemo, useRef, useState, useStore } from "./ui.js";
import { Failure, Volume, end, protocolName, useAnswer, useDelayed, useSeen, whyLink } from "./parts.js";

const PAGE = 25;
const PERIOD_S = 3;
const MOST_SORTED = 5000; // as of the daemon; in the kernel's own order there is no such limit
const COLUMNS = [
  ["client", "client"],
  ["destination", null],
  ["state", null],
  ["uplink", "uplink"],
  ["volume", "bytes"],
  ["age", "age"],
];

export function Connections({ store, api, t, fmt }) {
  const { status } = useStore(store, "status");
  const box = useRef(null);
  const seen = useSeen(box);
  const [asked, setAsked] = useState({ find: "", uplink: "", sort: "bytes", offset: 0 });
  const [held, setHeld] = useState(false);
  const change = (some) => setAsked((before) => ({ ...before, offset: 0, ...some }));
  const find = useDelayed((text) => change({ find: text.trim() }), 250);
  const { answer, error } = useAnswer(() => api.get("/v1/flows", words(asked)), seen, PERIOD_S, [asked]);
  const rows = useRows(answer, asked, held);
  const total = totalOf(answer, asked);
  return html`<div ref=${box} class="s-connections">
    <form class="s-filter" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label>${t("connections.find")} <input type="search" onInput=${(event) => find(event.target.value)} maxlength="100"
        placeholder=${t("connections.find_hint")} /></label>
      <label>${t("connections.uplink")}
        <select value=${asked.uplink} onChange=${(e) => change({ uplink: e.target.value })}>
          <option value="">${t("connections.all")}</option>
          ${choices(status, asked.uplink).map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        </select>
      </label>
    </form>
    <${Failure} error=${error} t=${t} />
    <table role="table" class="s-table" aria-label=${t("connections.title")}
      onMouseEnter=${() => setHeld(true)} onMouseLeave=${() => setHeld(false)}
      onFocusIn=${() => setHeld(true)} onFocusOut=${() => setHeld(false)}>
      <thead role="rowgroup"><tr role="row">
        ${COLUMNS.map(([name, sort]) => html`<${Heading} key=${name} ...${{ name, sort, asked, change, t }} />`)}
      </tr></thead>
      <tbody role="rowgroup">${rows.map((row) => html`<${Row} key=${row.key} row=${row} t=${t} fmt=${fmt} />`)}</tbody>
    </table>
    ${answer && !rows.length && html`<p class="s-none">${t(asked.find || asked.uplink ? "connections.none_found" : "connections.none")}</p>`}
    <${Pager} asked=${asked} total=${total} shown=${rows.length} change=${change} held=${held} t=${t} fmt=${fmt} />
  </div>`;
}

function words({ find, uplink, sort, offset }) {
  return { limit: PAGE, offset, sort, find, uplink };
}

function choices(status, chosen) {
  const names = [...(status?.uplinks ?? []).map((uplink) => uplink.name), "other", "probe"];
  return !chosen || names.includes(chosen) ? names : [...names, chosen];
}

function totalOf(answer, asked) {
  return answer ? (answer.total ?? answer.totals.reduce((sum, each) => sum + each.connections, 0)) : 0;
}

// The rows to show. While somebody points at them they keep their places, and only their numbers change.
function useRows(answer, asked, held) {
  const shown = useRef({ asked: null, rows: [] });
  return useMemo(() => {
    const now = answer ? rowsOf(answer) : [];
    const same = shown.current.asked === asked;
    const rows = held && same && shown.current.rows.length ? inPlace(shown.current.rows, now) : now;
    shown.current = { asked, rows };
    return rows;
  }, [answer, held]);
}

function rowsOf({ columns, flows }) {
  const twice = new Map();
  return flows.map((cells) => {
    const row = Object.fromEntries(columns.map((name, place) => [name, cells[place]]));
    const key = [row.protocol, row.client, row.client_port, row.destination, row.port].join(" ");
    const before = twice.get(key) ?? 0;
    twice.set(key, before + 1);
    row.key = before ? `${key} ${before}` : key;
    return row;
  });
}

function inPlace(before, now) {
  const found = new Map(now.map((row) => [row.key, row]));
  const known = new Set(before.map((row) => row.key));
  const kept = before.map((row) => found.get(row.key) ?? { ...row, gone: true });
  return [...kept, ...now.filter((row) => !known.has(row.key))].slice(0, Math.max(before.length, now.length));
}

function Heading({ name, sort, asked, change, t }) {
  const text = t(`connections.${name}`);
  const sorted = sort !== null && asked.sort === sort;
  const order = name === "volume" || name === "age" ? "descending" : "ascending";
  return html`<th role="columnheader" scope="col" class=${`s-${name}`} aria-sort=${sorted ? order : undefined}>
    ${sort === null ? text : html`<button type="button" class="s-sort" title=${sorted ? t("connections.unsort") : undefined}
      onClick=${() => change({ sort: sorted ? "" : sort })}>
      ${text}${sorted && (order === "descending" ? " ▾" : " ▴")}</button>`}
  </th>`;
}

function Row({ row, t, fmt }) {
  const from = end(fmt.text(row.client), row.client_port);
  const to = end(fmt.text(row.destination), row.port);
  const protocol = protocolName(row.protocol);
  const asked = { from: row.client, to: end(row.destination, row.port), protocol, source_port: row.client_port };
  return html`<tr role="row" class=${row.gone ? "s-gone" : ""}>
    <td role="cell" class="s-client"><a href=${whyLink(asked)} title=${t("connections.why", { from, to })}>${from}</a></td>
    <td role="cell" class="s-destination"><span class="s-protocol">${protocol}</span> ${to}</td>
    <td role="cell" class="s-state">${[row.gone ? t("connections.gone") : row.state, row.fast ? t("connections.fast") : ""].join(" ")}</td>
    <td role="cell" class="s-uplink">${fmt.text(row.uplink)}</td>
    <td role="cell" class="s-volume"><${Volume} down=${row.bytes_down} up=${row.bytes_up} t=${t} fmt=${fmt} /></td>
    <td role="cell" class="s-age">${row.age === null ? "–" : fmt.span(row.age)}</td>
  </tr>`;
}

function Pager({ asked, total, shown, change, held, t, fmt }) {
  const { offset } = asked;
  const last = offset + shown;
  const range = { from: fmt.number(Math.min(offset + 1, total)), to: fmt.number(last), total: fmt.number(total) };
  const full = asked.sort !== "" && last >= MOST_SORTED;
  const turn = (pages) => () => change({ offset: Math.max(0, offset + pages * PAGE) });
  return html`<nav class="s-pager" aria-label=${t("connections.pages")}>
    <button type="button" class="button" disabled=${offset === 0} onClick=${turn(-1)}>${t("connections.previous")}</button>
    <span>${total > 0 && t("connections.range", range)}</span>
    <button type="button" class="button" disabled=${last >= total || full} onClick=${turn(1)}>${t("connections.next")}</button>
    <small>${full && last < total ? t("connections.full") : held ? t("connections.held") : ""}</small>
  </nav>`;
}
