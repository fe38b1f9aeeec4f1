// Clients, this box, its uplinks, the Internet: lines as wide as what runs over them, drawn as their state.
import { html, useLayoutEffect, useRef, useState, useStore } from "./ui.js";
import { Icon, reasonOf, stateOf, toneOf, wordOf } from "./states.js";

const NARROWEST = 260; // before there is a style, a part may be narrower than any screen
const EACH = 6; // more uplinks than this are drawn in groups of the same state
const FEW = 12; // larger groups are not listed where there is little room: the rows below have all of them
const GROUPS = ["bad", "warn", "ok", "idle", "off"];
const MOVING = 1000; // bits per second from which on a line moves

// Bits per second to the width of a strand: 100 kbit/s 2, 10 Mbit/s 4, 1 Gbit/s 7 pixels.
const thickness = (rate) => 1.5 + 1.3 * Math.log10(1 + (rate || 0) / 1e5);
const speed = (rate) => Math.min(4, 1 + Math.floor(Math.log10(1 + rate / 1e5)));

let pen;
const widths = new Map();
function widthOf(text, font) {
  const key = font + text;
  if (widths.has(key)) return widths.get(key);
  if (widths.size > 5000) widths.clear();
  pen ??= document.createElement("canvas").getContext("2d");
  pen.font = font;
  const { width } = pen.measureText(text);
  widths.set(key, width);
  return width;
}

function cut(text, width, font) {
  if (widthOf(text, font) <= width) return text;
  let end = text.length;
  while (end > 1 && widthOf(text.slice(0, end) + "…", font) > width) end -= 1;
  return text.slice(0, end) + "…";
}

const both = (rx, tx, fmt) => `↓ ${fmt.bits(rx)}\u2002↑ ${fmt.bits(tx)}`;

export function Topology({ store, t, fmt }) {
  const { status } = useStore(store, "status", "samples", "private");
  const place = useRef(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const measure = () => {
      const { paddingLeft, paddingRight } = getComputedStyle(place.current);
      setWidth(Math.max(NARROWEST, place.current.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight)));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  return html`
    <section class="topology card" aria-label=${t("topology.title")} ref=${place}>
      ${width && status ? html`<${Drawing} ...${{ store, status, width, t, fmt }} />` : null}
    </section>`;
}

function Drawing({ store, status, width, t, fmt }) {
  const uplinks = status.uplinks.map((uplink, index) => ({ ...store.live(uplink), index }));
  const narrow = width < 640;
  const nodes = uplinks.length > EACH ? groupsOf(uplinks) : uplinks.map((uplink) => ({ tone: toneOf(uplink), uplinks: [uplink] }));
  const at = layout(nodes, width, narrow);
  const total = sum(uplinks);
  const ends = { stroke: total.rx + total.tx > MOVING ? "ok" : "idle" };
  return html`
    <svg width=${width} height=${at.height} role="group" aria-label=${t("topology.summary", {
      n: uplinks.length, up: uplinks.filter((uplink) => ["ok", "warn"].includes(toneOf(uplink))).length })}>
      <${Link} from=${at.clients.out} to=${at.box.in} tone=${ends.stroke} ...${total} most=${at.most} />
      ${nodes.map((node, n) => {
        const rates = sum(node.uplinks);
        return html`
          <${Link} key=${`a${n}`} from=${at.anchors[n]} to=${at.nodes[n].in} tone=${node.tone} ...${rates} most=${at.most} mark=${true} />
          <${Link} key=${`b${n}`} from=${at.nodes[n].out} to=${at.far[n]} tone=${node.tone} ...${rates} most=${at.most} />`;
      })}
      <${End} at=${at.clients} kind="clients" label=${t("topology.clients")} narrow=${narrow} />
      <${End} at=${at.box} kind="box" label=${t("topology.box")} narrow=${narrow} />
      <${End} at=${at.internet} kind="internet" label=${t("topology.internet")} narrow=${narrow} />
      ${narrow
        ? null
        : html`<g class="rates" aria-hidden="true">
            <text x=${at.trunk} y=${at.clients.y - 12} text-anchor="middle">↓ ${fmt.bits(total.rx)}</text>
            <text x=${at.trunk} y=${at.clients.y + 24} text-anchor="middle">↑ ${fmt.bits(total.tx)}</text></g>`}
      ${nodes.map((node, n) =>
        html`<${node.uplinks.length === 1 && !node.group ? Uplink : Group} key=${n} ...${{ node, at: at.nodes[n], t, fmt }} />`)}
    </svg>
    ${narrow ? html`<p class="rates-below" aria-hidden="true">${t("topology.total", { down: fmt.bits(total.rx), up: fmt.bits(total.tx) })}</p>` : null}`;
}

function sum(uplinks) {
  const add = (key) => uplinks.reduce((whole, uplink) => whole + (uplink[key] || 0), 0);
  return { rx: add("rx_bps"), tx: add("tx_bps") };
}

function groupsOf(uplinks) {
  return GROUPS.map((tone) => ({ tone, group: true, uplinks: uplinks.filter((uplink) => toneOf(uplink) === tone) }))
    .filter((group) => group.uplinks.length);
}

// Where everything is, in pixels of the page, so that no letter is scaled.
function layout(nodes, width, narrow) {
  const gap = narrow ? 8 : 12;
  const end = narrow ? 46 : 92;
  const grouped = nodes.some((node) => node.group);
  const left = narrow ? 86 : Math.round(Math.max(330, width * (grouped ? 0.33 : 0.4)));
  const size = width - left - (narrow ? 66 : Math.max(170, width * (grouped ? 0.15 : 0.19)));
  const columns = Math.max(1, Math.floor((size - 12) / 84));
  const listed = (node) => Math.ceil(node.uplinks.length / columns) * !(narrow && node.uplinks.length > FEW);
  const heights = nodes.map((node) => (node.group ? 36 + 22 * listed(node) : narrow ? 56 : 58));
  const needed = heights.reduce((whole, height) => whole + height + gap, -gap);
  const height = Math.max(narrow ? 190 : 140, needed + 24);
  let y = (height - needed) / 2;
  const middle = height / 2;
  const boxes = heights.map((tall, n) => {
    const found = { x: left, y, width: size, height: tall, columns, listed: listed(nodes[n]) > 0, in: [left, y + tall / 2], out: [left + size, y + tall / 2] };
    y += tall + gap;
    return found;
  });
  const spread = (n, most) => middle + (n - (nodes.length - 1) / 2) * Math.min(16, most / nodes.length);
  const clients = narrow
    ? { x: 23, y: middle - 62, out: [23, middle - 34], end }
    : { x: 54, y: middle, out: [54 + end / 2, middle], end };
  const box = narrow
    ? { x: 23, y: middle + 10, in: [23, middle - 14], end }
    : { x: left * 0.68, y: middle, in: [left * 0.68 - end / 2, middle], end };
  const internet = narrow ? { x: width - 23, y: middle, end } : { x: width - 54, y: middle, end };
  return {
    height, nodes: boxes, clients, box, internet,
    most: narrow ? 5 : 9,
    trunk: (clients.out[0] + box.in[0]) / 2,
    anchors: nodes.map((_, n) => [box.x + end / 2, (narrow ? 10 : 0) + spread(n, 54)]),
    far: nodes.map((_, n) => [internet.x - end / 2, spread(n, 54)]),
  };
}

// Two strands, what comes down above what goes up; where it is broken, one with a gap.
function Link({ from, to, tone, rx, tx, most, mark }) {
  const [x1, y1] = from;
  const [x2, y2] = to;
  const upright = x1 === x2;
  const bend = (x2 - x1) * 0.5;
  const path = (by) => upright
    ? `M${x1 + by} ${y1}V${y2}`
    : `M${x1} ${y1 + by}C${x1 + bend} ${y1 + by} ${x2 - bend} ${y2 + by} ${x2} ${y2 + by}`;
  const broken = tone === "bad" || tone === "off";
  const down = Math.min(most, thickness(rx));
  const up = Math.min(most, thickness(tx));
  const half = (down + up) / 4 + 1;
  const sign = mark && tone !== "ok" ? html`
    <circle class="ground" cx=${(x1 + x2) / 2} cy=${(y1 + y2) / 2} r="11" />
    <${Icon} tone=${tone} x=${(x1 + x2) / 2 - 8} y=${(y1 + y2) / 2 - 8} />` : null;
  if (broken) return html`<g class="link tone-${tone}"><path class="strand broken" d=${path(0)} pathLength="100" />${sign}</g>`;
  return html`
    <g class="link tone-${tone}">
      <path class="strand down" d=${path(-half)} stroke-width=${down} />
      <path class="strand up" d=${path(half)} stroke-width=${up} />
      ${rx > MOVING ? html`<path class="flow down speed-${speed(rx)}" d=${path(-half)} stroke-width=${Math.max(1.2, down * 0.4)} />` : null}
      ${tx > MOVING ? html`<path class="flow up speed-${speed(tx)}" d=${path(half)} stroke-width=${Math.max(1.2, up * 0.4)} />` : null}
      ${sign}
    </g>`;
}

const ENDS = {
  clients: "M-11-8h14v9h-14zM-14 4h20M7-4h7v13H7zM9.5 6h2",
  box: "M-14-2h28v10h-28zM-9-2v-7M9-2v-7M-8 3h.1M-3 3h.1M6 3h4",
  internet: "M0-12a12 12 0 100 24 12 12 0 000-24zM-12 0h24M0-12c-8 7-8 17 0 24M0-12c8 7 8 17 0 24",
};

function End({ at, kind, label, narrow }) {
  const tall = narrow ? 48 : 72;
  return html`
    <g class="end" transform="translate(${at.x} ${at.y})">
      <rect x=${-at.end / 2} y=${-tall / 2} width=${at.end} height=${tall} rx="10" />
      <path d=${ENDS[kind]} transform="translate(0 ${narrow ? -5 : -10})" />
      <text y=${narrow ? 19 : 25} text-anchor="middle">${cut(label, at.end - 4, narrow ? "10px sans-serif" : "12px sans-serif")}</text>
    </g>`;
}

function show(event, index) {
  const card = document.getElementById(`uplink-${index}`);
  if (!card) return;
  event.preventDefault();
  card.scrollIntoView({ block: "center" });
  card.focus({ preventScroll: true });
}

function Uplink({ node, at, t, fmt }) {
  const [uplink] = node.uplinks;
  const word = wordOf(stateOf(uplink), t);
  const name = fmt.text(uplink.name);
  const small = at.width < 240;
  const beside = widthOf(word, "600 13px sans-serif") + 24;
  return html`
    <a class="node tone-${node.tone}" href=${`#uplink-${uplink.index}`} onClick=${(event) => show(event, uplink.index)}
      aria-label=${t("topology.uplink", { name, state: word })}>
      <title>${`${name}: ${word}: ${fmt.text(reasonOf(uplink))}`}</title>
      <rect x=${at.x} y=${at.y} width=${at.width} height=${at.height} rx="10" />
      <${Icon} tone=${node.tone} x=${at.x + 10} y=${at.y + 10} />
      <text class="name" x=${at.x + 33} y=${at.y + 23}>${cut(name, at.width - 36 - beside, "600 14px sans-serif")}</text>
      <text class="word" x=${at.x + at.width - 12} y=${at.y + 23} text-anchor="end">${word}</text>
      <text class="rates" x=${at.x + (small ? 10 : 33)} y=${at.y + at.height - 13}>
        ${uplink.counted === false ? "" : both(uplink.rx_bps, uplink.tx_bps, fmt)}</text>
      ${small ? null : html`<text class="rates" x=${at.x + at.width - 12} y=${at.y + at.height - 13} text-anchor="end">
        ${uplink.share ? fmt.percent(uplink.share) : ""}</text>`}
    </a>`;
}

function Group({ node, at, t, fmt }) {
  const rates = sum(node.uplinks);
  const each = (at.width - 12) / at.columns;
  return html`
    <g class="node tone-${node.tone}">
      <rect x=${at.x} y=${at.y} width=${at.width} height=${at.height} rx="10" />
      <${Icon} tone=${node.tone} x=${at.x + 10} y=${at.y + 8} />
      <text class="name" x=${at.x + 33} y=${at.y + 21}>
        ${cut(t(`group.${node.tone}`, { n: node.uplinks.length }), at.width - 54, "600 14px sans-serif")}</text>
      ${at.width > 300 ? html`<text class="rates" x=${at.x + at.width - 12} y=${at.y + 21} text-anchor="end">
        ${both(rates.rx, rates.tx, fmt)}</text>` : null}
      ${at.listed && node.uplinks.map((uplink, n) => html`<${Chip} key=${uplink.name} uplink=${uplink} t=${t} fmt=${fmt} width=${each - 6}
        x=${at.x + 9 + (n % at.columns) * each} y=${at.y + 34 + 22 * Math.floor(n / at.columns)} />`)}
    </g>`;
}

function Chip({ uplink, x, y, width, t, fmt }) {
  const name = fmt.text(uplink.name);
  const word = wordOf(stateOf(uplink), t);
  const busy = Math.min(1, Math.log10(1 + ((uplink.rx_bps || 0) + (uplink.tx_bps || 0)) / 1e5) / 4);
  return html`
    <a class="chip" href=${`#uplink-${uplink.index}`} onClick=${(event) => show(event, uplink.index)}
      aria-label=${t("topology.uplink", { name, state: word })}>
      <title>${`${name}: ${word}: ${fmt.text(reasonOf(uplink))}`}</title>
      <rect x=${x} y=${y} width=${width} height="18" rx="4" />
      <rect class="level" x=${x} y=${y + 15.5} width=${Math.max(0, width * busy)} height="2.5" rx="1" />
      <text x=${x + 6} y=${y + 12.5}>${cut(name, width - 10, "11px sans-serif")}</text>
    </a>`;
}
