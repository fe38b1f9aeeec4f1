// Each uplink by itself: its state and why, what is measured, what it was promised and what it got.
import { html, useState, useStore } from "./ui.js";
import { Badge, byUrgency, reasonOf, stateOf, toneOf, wordOf } from "./states.js";

const OPEN = 8; // more uplinks than this are rows that open
const SPARK = 60;

export function Cards({ store, api, t, fmt, CardActions }) {
  const { status, samples } = useStore(store, "status", "samples", "private", "scopes");
  if (!status) return null;
  const recent = samples.slice(-SPARK);
  const uplinks = status.uplinks.map((uplink, index) => ({ uplink: store.live(uplink), index }));
  const many = uplinks.length > OPEN;
  const order = many ? byUrgency(uplinks.map(({ uplink, index }) => ({ ...uplink, index }))) : null;
  const parts = { store, api, t, fmt, CardActions, recent };
  return html`
    <section class="cards ${many ? "rows" : ""}" id="uplinks" aria-label=${t("cards.title")}>
      ${many ? html`<div class="head muted" aria-hidden="true"><span>${t("charts.uplink")}</span><span></span>
        <span>↓</span><span>↑</span><span>${t("cards.rtt")}</span><span>${t("cards.new")}</span></div>` : null}
      ${many
        ? order.map(({ index, ...uplink }) => html`<${Row} key=${uplink.name} ...${parts} uplink=${uplink} index=${index} />`)
        : uplinks.map(({ uplink, index }) => html`
          <article class="card uplink tone-${toneOf(uplink)}" key=${uplink.name} id=${`uplink-${index}`} tabindex="-1"
            aria-label=${fmt.text(uplink.name)}><${Card} ...${parts} uplink=${uplink} index=${index} /></article>`)}
    </section>`;
}

function Row({ uplink, index, ...parts }) {
  const { t, fmt } = parts;
  const [open, setOpen] = useState(false);
  return html`
    <details class="card uplink tone-${toneOf(uplink)}" id=${`uplink-${index}`} tabindex="-1"
      onToggle=${(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <strong>${fmt.text(uplink.name)}</strong><${Badge} uplink=${uplink} t=${t} />
        <span class="num">↓ ${fmt.bits(uplink.rx_bps)}</span><span class="num">↑ ${fmt.bits(uplink.tx_bps)}</span>
        <span class="num">${fmt.ms(uplink.rtt_ms)}</span><span class="num">${fmt.percent(uplink.share)}</span>
      </summary>
      ${open ? html`<${Card} ...${parts} uplink=${uplink} index=${index} bare=${true} />` : null}
    </details>`;
}

function Card({ uplink, index, bare, store, api, t, fmt, CardActions, recent }) {
  const counted = uplink.counted !== false;
  return html`
    ${bare ? null : html`<div class="title"><i class="swatch series-${index % 8}" aria-hidden="true"></i>
      <h2>${fmt.text(uplink.name)}</h2><span class="muted">${fmt.text(uplink.interface)}</span>
      <${Badge} uplink=${uplink} t=${t} /></div>`}
    <p class="reason">${fmt.text(reasonOf(uplink))}
      <span class="muted" title=${fmt.full(uplink.since)}> · ${t("cards.since", { time: fmt.time(uplink.since) })}</span></p>
    <${Families} uplink=${uplink} t=${t} fmt=${fmt} />
    <div class="rates">
      <${Rate} sign="↓" label=${t("cards.down")} now=${counted ? uplink.rx_bps : null} recent=${recent} name=${uplink.name} what="rx_bps" index=${index} fmt=${fmt} />
      <${Rate} sign="↑" label=${t("cards.up")} now=${counted ? uplink.tx_bps : null} recent=${recent} name=${uplink.name} what="tx_bps" index=${index} fmt=${fmt} />
    </div>
    <dl class="facts">
      <${Fact} label=${t("cards.rtt")} value=${fmt.ms(uplink.rtt_ms)} />
      <${Fact} label=${t("cards.jitter")} value=${fmt.ms(uplink.jitter_ms)} />
      <${Fact} label=${t("cards.loss")} value=${fmt.percent(uplink.loss)} loud=${uplink.loss > 0.02} />
      <${Fact} label=${t("cards.connections")} value=${fmt.number(uplink.connections)} />
    </dl>
    <${Share} uplink=${uplink} t=${t} fmt=${fmt} />
    <${Quota} quota=${uplink.quota} t=${t} fmt=${fmt} />
    <dl class="lines">
      <${Line} label=${t("cards.address")} value=${pair(uplink.address, uplink.address6, fmt)} />
      <${Line} label=${t("cards.gateway")} value=${pair(uplink.gateway, uplink.gateway6, fmt)} />
      <${Outage} uplink=${uplink} t=${t} fmt=${fmt} />
      <${Line} label=${t("cards.volume")} value=${counted ? t("cards.volume.text", { down: fmt.bytes(uplink.rx_bytes), up: fmt.bytes(uplink.tx_bytes) }) : null} />
      <${Line} label=${t("cards.probes")} value=${uplink.probe_bytes_month === null
        ? t("cards.probes.start", { bytes: fmt.bytes(uplink.probe_bytes) })
        : t("cards.probes.month", { bytes: fmt.bytes(uplink.probe_bytes_month) })} />
    </dl>
    ${CardActions ? html`<${CardActions} uplink=${uplink} ...${{ store, api, t, fmt }} />` : null}`;
}

const pair = (one, other, fmt) => [one, other].filter(Boolean).map(fmt.text).join(", ") || null;

const Fact = ({ label, value, loud }) => html`<div class=${loud ? "loud" : ""}><dt>${label}</dt><dd>${value}</dd></div>`;

const Line = ({ label, value }) => (value ? html`<div><dt>${label}</dt><dd>${value}</dd></div>` : null);

// Each family by itself, only where they differ.
function Families({ uplink, t, fmt }) {
  const families = Object.entries(uplink.families);
  if (new Set(families.map(([, family]) => family.state)).size < 2) return null;
  return html`<ul class="families">${families.map(([name, family]) => html`
    <li><strong>${t(`family.${name}`)}</strong> ${wordOf(family.state, t)}: ${fmt.text(family.reason)}</li>`)}</ul>`;
}

function Rate({ sign, label, now, recent, name, what, index, fmt }) {
  const values = recent.map((sample) => sample.uplinks[name]?.[what] ?? 0);
  const most = Math.max(1e5, ...values);
  const step = 100 / (SPARK - 1);
  const points = values.map((value, n) => `${(100 - (values.length - 1 - n) * step).toFixed(1)},${(23 - (21 * value) / most).toFixed(1)}`);
  return html`
    <div class="rate"><span class="visually-hidden">${label}</span>
      <span class="value"><span aria-hidden="true">${sign}</span> ${fmt.bits(now)}</span>
      <svg class="spark series-${index % 8}" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
        ${points.length > 1 ? html`<polyline points=${points.join(" ")} />` : null}</svg></div>`;
}

// What it is to be given of new connections, and what it has of those that are there.
function Share({ uplink, t, fmt }) {
  const wide = (part) => ({ width: `${100 * (part || 0)}%` });
  return html`
    <div class="share">
      <span>${t("cards.share.wanted", { share: fmt.percent(uplink.share) })}</span>
      ${uplink.share_seen === null ? null : html`
        <span class="muted">${t("cards.share.seen", { share: fmt.percent(uplink.share_seen) })}</span>`}
      <div class="bar" aria-hidden="true"><i class="wanted" style=${wide(uplink.share)}></i>
        ${uplink.share_seen === null ? null : html`<i class="seen" style=${wide(uplink.share_seen)}></i>`}</div>
    </div>`;
}

function Quota({ quota, t, fmt }) {
  if (!quota) return null;
  const tone = { within: "ok", soft: "warn", hard: "bad" }[quota.state] || "warn";
  const part = quota.hard_bytes ? Math.min(1, quota.used_bytes / quota.hard_bytes) : 1;
  return html`
    <div class="quota tone-${tone}">
      <span>${t("cards.quota", { used: fmt.bytes(quota.used_bytes), all: fmt.bytes(quota.hard_bytes) })}</span>
      <div class="bar" aria-hidden="true"><i style=${{ width: `${100 * part}%` }}></i></div>
      <span class="muted">${fmt.text(quota.text)}</span>
    </div>`;
}

function Outage({ uplink, t, fmt }) {
  const [last] = uplink.outages;
  if (!last) return html`<${Line} label=${t("cards.outage")} value=${t("cards.outage.none")} />`;
  const span = last.seconds === null ? t("cards.outage.lasts") : fmt.span(last.seconds);
  return html`<div><dt>${t("cards.outage")}</dt><dd title=${fmt.full(last.since)}>
    ${t("cards.outage.text", { time: fmt.time(last.since), span, reason: fmt.text(last.reason) })}</dd></div>`;
}
