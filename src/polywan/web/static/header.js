// How all is, in a word; what is wrong, in sentences; whether what is shown is old; the switches.
import { html, useEffect, useEvery, useRef, useState, useStore } from "./ui.js";
import { LANGUAGES } from "./i18n.js";
import { Icon, byUrgency, overall, reasonOf, stateOf, toneOf, wordOf } from "./states.js";

const MOST = 5; // problems before the rest is only counted
const FEW = 3; // the same on a phone, where the drawing below is to be seen as well

export function Header({ store, api, t, fmt, settings, Tools }) {
  const { status, stale } = useStore(store, "status", "stale", "private");
  const { word, tone, bad, wanted } = overall(status);
  useEffect(() => {
    document.title = `${t(`overall.${stale && stale !== "connecting" ? "stale" : word}`)} · polywan`;
    document.getElementById("icon").href = new URL(`./icon-${stale ? "off" : tone}.svg`, import.meta.url);
  }, [word, tone, stale, t]);
  return html`
    <header class="top">
      <div class="overall tone-${tone} ${stale ? "is-stale" : ""}">
        <${Icon} tone=${tone} size=${30} />
        <div>
          <h1>${t(`overall.${word}`)}</h1>
          <p>${status ? t(`overall.${word}.text`, { n: bad || wanted, of: wanted }) : t("overall.unknown.text")}</p>
        </div>
      </div>
      <div class="tools">
        ${Tools ? html`<${Tools} ...${{ store, api, t, fmt }} />` : null}
        <${Switches} settings=${settings} t=${t} store=${store} />
      </div>
    </header>
    <${Stale} store=${store} t=${t} fmt=${fmt} />
    <${Problems} store=${store} t=${t} fmt=${fmt} />
    <${Announcer} store=${store} t=${t} fmt=${fmt} />`;
}

function Switches({ settings, t, store }) {
  const hidden = store.state.private;
  return html`
    <button class="button" aria-pressed=${hidden ? "true" : "false"} title=${t("switch.private.title")}
      onClick=${settings.togglePrivate}>${t("switch.private")}</button>
    <button class="button" title=${t("switch.theme.title")} onClick=${settings.nextTheme}>
      ${t(`theme.${settings.theme}`)}</button>
    <select class="button" aria-label=${t("switch.language")} value=${settings.language}
      onChange=${(event) => settings.setLanguage(event.target.value)}>
      ${Object.entries(LANGUAGES).map(([code, name]) =>
        html`<option value=${code} lang=${code} selected=${code === settings.language}>${name}</option>`)}
    </select>
    <button class="button" aria-label=${t("help.title")} title=${t("help.title")} onClick=${settings.help}>?</button>`;
}

// What `polywan status` prints above its table.
function problemsOf(status, t, fmt) {
  const found = byUrgency(status.uplinks)
    .filter((uplink) => ["bad", "warn"].includes(toneOf(uplink)))
    .map((uplink) => ({
      tone: toneOf(uplink),
      text: t("problem.uplink", {
        name: fmt.text(uplink.name), state: wordOf(stateOf(uplink), t), reason: fmt.text(reasonOf(uplink)),
        span: fmt.span(uplink.since ? (Date.now() - new Date(uplink.since)) / 1000 : null),
      }),
    }));
  found.push(...status.warnings.map((text) => ({ tone: "warn", text: fmt.text(text) })));
  found.push(...status.drift.map((text) => ({ tone: "idle", text: t("problem.repaired", { text: fmt.text(text) }) })));
  return found;
}

function Problems({ store, t, fmt }) {
  const { status } = useStore(store, "status", "private");
  useEvery(1000);
  const [all, setAll] = useState(false);
  const found = status ? problemsOf(status, t, fmt) : [];
  if (!found.length) return null;
  const most = matchMedia("(max-width: 639px)").matches ? FEW : MOST;
  const shown = all || found.length <= most ? found : found.slice(0, most - 1);
  return html`
    <section class="problems" aria-label=${t("problem.title")}>
      <ul>${shown.map(({ tone, text }) => html`<li class="tone-${tone}"><${Icon} tone=${tone} />
        <span>${text}</span></li>`)}</ul>
      ${found.length > shown.length
        ? html`<button class="link" onClick=${() => setAll(true)}>${t("problem.more", { n: found.length - shown.length })}</button>`
        : null}
    </section>`;
}

function Stale({ store, t, fmt }) {
  const { stale, heard, retry, refusal, status } = useStore(store, "stale", "heard", "retry", "refusal", "status");
  useEvery(500);
  const silent = heard ? (Date.now() - heard) / 1000 : null;
  if (!stale || (stale === "connecting" && !refusal) || (stale === "lost" && silent !== null && silent < 1.5)) return null;
  const parts = [t(`stale.${stale}`)];
  if (stale !== "refused" && refusal) parts.push(fmt.text(refusal.message));
  if (status && silent !== null) parts.push(t("stale.heard", { span: fmt.span(silent) }));
  if (retry && stale !== "paused") parts.push(t("stale.retry", { span: fmt.span((retry - Date.now()) / 1000) }));
  return html`<div class="stale tone-warn"><${Icon} tone="warn" /><span>${parts.join(" ")}</span></div>`;
}

// Tells screen readers of changes of state, and never of rates.
function Announcer({ store, t, fmt }) {
  const { status, stale } = useStore(store, "status", "stale");
  const before = useRef(null);
  const [said, say] = useState("");
  useEffect(() => {
    if (!status) return;
    const states = new Map(status.uplinks.map((uplink) => [uplink.name, stateOf(uplink)]));
    if (before.current) {
      const news = status.uplinks.filter((uplink) => before.current.get(uplink.name) !== states.get(uplink.name));
      if (news.length) {
        say(news.slice(0, MOST).map((uplink) => t("announce.state", {
          name: fmt.text(uplink.name), state: wordOf(stateOf(uplink), t), reason: fmt.text(reasonOf(uplink)) })).join(" "));
      }
    }
    before.current = states;
  }, [status]);
  useEffect(() => {
    if (stale === "lost" || stale === "refused") say(t(`stale.${stale}`));
  }, [stale]);
  return html`<div class="visually-hidden" role="status" aria-live="polite">${said}</div>`;
}
