// Starts the page: settings, the stream, the parts, the keyboard.
import { Dialog, html, render, useEffect, useState, useStore } from "./ui.js";
import { api, takeToken } from "./api.js";
import { formats, loadCatalogue, preferred, translator } from "./i18n.js";
import { createStore } from "./store.js";
import { follow } from "./stream.js";
import { Header } from "./header.js";
import { Topology } from "./topology.js";
import { Cards } from "./cards.js";
import { Charts } from "./charts.js";
import { Beats } from "./beats.js";
import { CardActions, Tools, sections } from "./sections.js";

const THEMES = ["auto", "light", "dark"];
const LATEST = 1000; // milliseconds after which the rest is drawn without a daemon that answers, too
const KEYS = { "?": "help", d: "theme", h: "private", j: "next", k: "previous", t: "top" };

const remembered = (key) => localStorage.getItem(`polywan.${key}`);
const remember = (key, value) => localStorage.setItem(`polywan.${key}`, value);

const store = createStore();
let theme = THEMES.includes(remembered("theme")) ? remembered("theme") : "auto";
let language = preferred(remembered("language"));

function applyTheme() {
  document.documentElement.dataset.theme = theme;
  store.set({ theme });
}

// What this reader may do.
async function introduce() {
  try {
    const { scopes, name } = await api.whoami();
    store.set({ scopes, who: name });
  } catch {
    store.set({ scopes: [], who: "" });
  }
}

function move(by) {
  const cards = [...document.querySelectorAll(".uplink")];
  const at = cards.indexOf(document.activeElement.closest(".uplink"));
  const next = cards[at < 0 ? (by > 0 ? 0 : cards.length - 1) : at + by];
  if (!next) return;
  next.scrollIntoView({ block: "nearest" });
  (next.querySelector("summary") || next).focus({ preventScroll: true });
}

const settings = {
  help: () => document.getElementById("help").dispatchEvent(new Event("open")),
  theme: () => settings.nextTheme(),
  nextTheme() {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    remember("theme", theme);
    applyTheme();
  },
  private: () => settings.togglePrivate(),
  togglePrivate: () => store.set({ private: !store.state.private }),
  setLanguage(code) {
    remember("language", code);
    language = code;
    start();
  },
  next: () => move(1),
  previous: () => move(-1),
  top: () => document.getElementById("content").focus(),
};

function onKey(event) {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select, dialog")) return;
  const section = sections[Number(event.key) - 1];
  if (section) document.getElementById(section.id).focus();
  else if (KEYS[event.key]) settings[KEYS[event.key]]();
  else return;
  event.preventDefault();
}

function Help({ t }) {
  const [open, setOpen] = useState(false);
  useEffect(() => {
    const place = document.getElementById("help");
    const show = () => setOpen(true);
    place.addEventListener("open", show);
    return () => place.removeEventListener("open", show);
  }, []);
  return html`
    <div id="help">
      <${Dialog} open=${open} onClose=${() => setOpen(false)} title=${t("help.title")} close=${t("dialog.close")}>
        <dl class="keys">
          ${Object.entries(KEYS).map(([key, what]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${t(`key.${what}`)}</dd></div>`)}
          ${sections.map(({ title }, n) => html`<div><dt><kbd>${n + 1}</kbd></dt><dd>${t(title)}</dd></div>`)}
        </dl>
        <p class="muted">${t("help.english")}</p>
      <//>
    </div>`;
}

function Page({ t, fmt }) {
  const { theme: shown, status, stale } = useStore(store, "theme", "private", "stale");
  const parts = { store, api, t, fmt };
  const [whole, setWhole] = useState(false);
  useEffect(() => {
    // The live part is on the screen before anything below it is asked for or drawn.
    const timer = setTimeout(() => requestAnimationFrame(() => setTimeout(setWhole, 0, true)), status ? 0 : LATEST);
    return () => clearTimeout(timer);
  }, [Boolean(status)]);
  return html`
    <a class="skip" href="#content" onClick=${(event) => { event.preventDefault(); settings.top(); }}>${t("skip")}</a>
    <${Header} ...${parts} settings=${{ ...settings, theme: shown, language }} Tools=${Tools} />
    <main id="content" tabindex="-1" class=${stale && status ? "is-stale" : ""}>
      <${Topology} ...${parts} />
      <${Cards} ...${parts} CardActions=${CardActions} />
      ${whole ? html`<${Charts} ...${parts} theme=${shown} /><${Beats} ...${parts} />` : null}
      ${whole && sections.map(({ id, title, component }) => html`
        <section class="card section" id=${id} key=${id} tabindex="-1" aria-label=${t(title)}>
          <h2>${t(title)}</h2><${component} ...${parts} /></section>`)}
    </main>
    <footer class="muted">${status ? t("footer", { version: status.version }) : null}</footer>
    <${Help} t=${t} />`;
}

async function start() {
  const t = translator(language, await loadCatalogue(language));
  document.documentElement.lang = language;
  render(html`<${Page} key=${language} t=${t} fmt=${formats(language, t, store)} />`, document.getElementById("page"));
}

takeToken();
applyTheme();
document.addEventListener("keydown", onKey);
const reopen = follow(store, api);
api.onToken = () => {
  reopen();
  introduce();
};
introduce();
start();
