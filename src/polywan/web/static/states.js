// What an uplink's state is called and looks like: a word, a colour (tone) and a shape.
import { html } from "./ui.js";

const TONES = {
  up: "ok", degraded: "warn", busy: "warn", draining: "warn", down: "bad", missing: "bad",
  disabled: "off", drained: "off", blocked: "off", standby: "idle",
};
const SHAPES = {
  ok: "M4.5 8.5l2.5 2.5 4.5-5.5",
  warn: "M8 5v4M8 11.6v.1",
  bad: "M5.4 5.4l5.2 5.2M10.6 5.4l-5.2 5.2",
  off: "M6 5.4v5.2M10 5.4v5.2",
  idle: "M8 4.8V8l2.2 1.4",
};
const FRAMES = {
  ok: "M8 1a7 7 0 100 14A7 7 0 008 1z",
  warn: "M8 1.2L15.4 14.4H.6z",
  bad: "M5.2 1h5.6L15 5.2v5.6L10.8 15H5.2L1 10.8V5.2z",
  off: "M3 1.5h10A1.5 1.5 0 0114.5 3v10a1.5 1.5 0 01-1.5 1.5H3A1.5 1.5 0 011.5 13V3A1.5 1.5 0 013 1.5z",
  idle: "M8 1a7 7 0 100 14A7 7 0 008 1z",
};
const ORDER = ["bad", "warn", "off", "idle", "ok"];

// The state as people are told it: also whether it is busy, stands by, or is blocked for its quota, as `polywan status` does.
export function stateOf(uplink) {
  if (uplink.state === "up" && uplink.quota?.action === "block") return "blocked";
  if (uplink.state === "up" && uplink.standby) return "standby";
  if (uplink.state === "degraded" && uplink.reason.startsWith("busy")) return "busy";
  return uplink.state;
}

// Why, without the word that is beside it.
export const reasonOf = (uplink) => uplink.reason.replace(/^busy: /, "");

export const toneOf = (uplink) => TONES[stateOf(uplink)] || "warn";

// A state of a later daemon is shown by its own name.
export const wordOf = (state, t) => (t.has(`state.${state}`) ? t(`state.${state}`) : state);

export const worst = (tones) => ORDER.find((tone) => tones.includes(tone)) || "off";

export const byUrgency = (uplinks) =>
  [...uplinks].sort((a, b) => ORDER.indexOf(toneOf(a)) - ORDER.indexOf(toneOf(b)));

// Drawn in a box of 16 by 16; `x` and `y` place it in a larger drawing.
export function Icon({ tone, x, y, size = 16 }) {
  const shape = TONES[tone] || tone;
  return html`
    <svg class="icon tone-${shape}" viewBox="0 0 16 16" width=${size} height=${size} x=${x} y=${y} aria-hidden="true">
      <path class="frame" d=${FRAMES[shape]} /><path class="sign" d=${SHAPES[shape]} />
    </svg>`;
}

export function Badge({ uplink, t }) {
  const state = stateOf(uplink);
  return html`<span class="badge tone-${toneOf(uplink)}"><${Icon} tone=${toneOf(uplink)} />${wordOf(state, t)}</span>`;
}

const OUT_BY_ORDER = ["disabled", "draining", "drained"];

// What all uplinks amount to: {word, tone, bad, wanted}, as the exit code of `polywan status --check` counts them.
export function overall(status) {
  if (!status) return { word: "unknown", tone: "off", bad: 0, wanted: 0 };
  if (!status.ready) return { word: "starting", tone: "warn", bad: 0, wanted: 0 };
  const wanted = status.uplinks.filter((uplink) => !OUT_BY_ORDER.includes(uplink.state));
  const alive = wanted.filter((uplink) => ["up", "degraded"].includes(uplink.state));
  const bad = wanted.length - alive.length;
  const counts = { bad, wanted: wanted.length };
  if (!alive.length) return { word: "offline", tone: "bad", ...counts };
  if (bad) return { word: "partly", tone: "bad", ...counts };
  if (alive.some((uplink) => uplink.state === "degraded")) return { word: "degraded", tone: "warn", ...counts };
  return { word: "well", tone: "ok", ...counts };
}
