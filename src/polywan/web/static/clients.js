// Who uses the uplinks: by the connections of this moment, and by the bytes of a month.
import { html, useRef, useState, useStore } from "./ui.js";
import { Failure, SplitBar, Volume, useAnswer, useSeen } from "./parts.js";

const MOST = 20;
const NOW_S = 5;
const MONTH_S = 60;

export function Clients({ store, api, t, fmt }) {
  const { status } = useStore(store, "status");
  const box = useRef(null);
  const seen = useSeen(box);
  const [span, setSpan] = useState("now");
  const names = (status?.uplinks ?? []).map((uplink) => uplink.name);
  const choose = (name) => html`<button type="button" class="button" aria-pressed=${String(span === name)}
    onClick=${() => setSpan(name)}>${t(`clients.${name}`)}</button>`;
  return html`<div ref=${box} class="s-clients">
    <div class="choice s-choice" role="group" aria-label=${t("clients.span")}>${choose("now")}${choose("month")}</div>
    <${span === "now" ? Now : Month} ...${{ api, t, fmt, seen, names }} />
  </div>`;
}

function Now({ api, t, fmt, seen, names }) {
  const { answer, error } = useAnswer(() => api.get("/v1/clients", { limit: MOST }), seen, NOW_S, []);
  const clients = answer?.clients ?? [];
  const all = [...names, ...rest(clients, names)];
  return html`<${Failure} error=${error} t=${t} />
    ${answer && !clients.length && html`<p class="s-none">${t("clients.none")}</p>`}
    ${clients.length > 0 && html`<${Legend} names=${all} fmt=${fmt} />
    <table role="table" class="s-table" aria-label=${t("clients.title_now")}>
      <${Head} columns=${["client", "connections", "split", "volume"]} t=${t} />
      <tbody role="rowgroup">${clients.map((client) => html`<tr role="row" key=${client.client}>
        <td role="cell" class="s-client">${fmt.text(client.client)}</td>
        <td role="cell" class="s-number">${fmt.number(client.connections)}</td>
        <td role="cell" class="s-split"><${SplitBar} parts=${parts(client.uplinks, all)} label=${spoken(client.uplinks, fmt)} /></td>
        <td role="cell" class="s-volume"><${Volume} down=${client.bytes_down} up=${client.bytes_up} t=${t} fmt=${fmt} /></td>
      </tr>`)}</tbody>
    </table>`}
    ${answer && answer.total > clients.length && html`<p class="s-none">
      ${t("clients.first", { shown: clients.length, total: fmt.number(answer.total) })}</p>`}`;
}

function Month({ api, t, fmt, seen, names }) {
  const { answer, error } = useAnswer(() => api.get("/v1/volumes"), seen, MONTH_S, []);
  const month = [...(answer?.uplinks ?? []), ...(answer?.clients ?? [])].map((each) => each.month).sort().at(-1);
  const of = (list) => (list ?? []).filter((each) => each.month === month);
  const clients = of(answer?.clients).slice(0, MOST);
  const most = Math.max(1, ...clients.map(moved));
  const uplinks = of(answer?.uplinks);
  return html`<${Failure} error=${error} t=${t} />
    ${answer?.problem && html`<p class="s-warning" lang="en">${answer.problem}</p>`}
    ${answer && !month && html`<p class="s-none">${t("clients.none_month")}</p>`}
    ${month && html`<h3>${monthName(month)}</h3>
    <${SplitBar} parts=${uplinks.map((each) => [each.uplink, moved(each), index(names, each.uplink)])}
      label=${uplinks.map((each) => `${fmt.text(each.uplink)} ${fmt.bytes(moved(each))}`).join(", ")} />
    <ul class="s-legend">${uplinks.map((each) => html`<li key=${each.uplink}>
      <i class="swatch series-${index(names, each.uplink) % 8}" aria-hidden="true"></i>
      ${fmt.text(each.uplink)}${" "}<${Volume} down=${each.rx_bytes} up=${each.tx_bytes} t=${t} fmt=${fmt} /></li>`)}</ul>
    <table role="table" class="s-table" aria-label=${t("clients.title_month")}>
      <${Head} columns=${["client", "part", "volume"]} t=${t} />
      <tbody role="rowgroup">${clients.map((each) => html`<tr role="row" key=${each.client}>
        <td role="cell" class="s-client">${each.client === "others" ? t("clients.others") : fmt.text(each.client)}</td>
        <td role="cell" class="s-split"><span class="s-bar" aria-hidden="true">
          <i class="series-0" style=${{ width: `${(100 * moved(each)) / most}%` }}></i></span></td>
        <td role="cell" class="s-volume"><${Volume} down=${each.rx_bytes} up=${each.tx_bytes} t=${t} fmt=${fmt} /></td>
      </tr>`)}</tbody>
    </table>`}`;
}

// Names that connections have and the status does not: "other", or an uplink that is no more.
function rest(clients, names) {
  return [...new Set(clients.flatMap((client) => Object.keys(client.uplinks)))].filter((name) => !names.includes(name)).sort();
}

const moved = (each) => each.rx_bytes + each.tx_bytes;
const index = (names, name) => (names.includes(name) ? names.indexOf(name) : names.length);
const parts = (uplinks, names) => names.map((name, place) => [name, uplinks[name] ?? 0, place]);
const spoken = (uplinks, fmt) =>
  Object.entries(uplinks).map(([name, count]) => `${fmt.text(name)} ${fmt.number(count)}`).join(", ");

const monthName = (month) =>
  new Date(`${month}-15`).toLocaleDateString(document.documentElement.lang || undefined, { month: "long", year: "numeric" });

function Head({ columns, t }) {
  return html`<thead role="rowgroup"><tr role="row">${columns.map((name) =>
    html`<th role="columnheader" scope="col" key=${name}>${t(`clients.${name}`)}</th>`)}</tr></thead>`;
}

function Legend({ names, fmt }) {
  return html`<ul class="s-legend">${names.map((name, place) => html`<li key=${name}>
    <i class="swatch series-${place % 8}" aria-hidden="true"></i>${fmt.text(name)}</li>`)}</ul>`;
}
