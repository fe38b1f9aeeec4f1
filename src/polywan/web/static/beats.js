// The last 24 hours and 30 days of each uplink, interval by interval; one opens what happened in it.
import { Dialog, html, useEffect, useRef, useState, useStore } from "./ui.js";
import { Icon, wordOf } from "./states.js";

const SPANS = ["24h", "30d"];
const REFRESH = 60000;
const LEAST = 0.1; // of the height: a second of outage must be seen

export function Beats({ store, api, t, fmt }) {
  const { status, entries, stale } = useStore(store, "status", "entries", "stale", "private");
  const [span, setSpan] = useState("24h");
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState("");
  const [asked, ask] = useState(null);
  useEffect(() => {
    let current = true;
    const load = () => api.get("/v1/availability", { span }).then(
      (answer) => current && (setFound({ span, uplinks: answer.uplinks }), setProblem("")),
      (error) => current && setProblem(error.message));
    if (stale !== "paused") load();
    const timer = setInterval(load, REFRESH);
    return () => {
      current = false;
      clearInterval(timer);
    };
  }, [span, entries.length, stale === "paused"]);
  if (!status) return null;
  const rows = found && found.span === span ? found.uplinks : {};
  return html`
    <section class="card beats" id="beats" tabindex="-1" aria-label=${t("beats.title")}>
      <div class="title"><h2>${t("beats.title")}</h2>
        <div class="choice" role="group" aria-label=${t("charts.range")}>
          ${SPANS.map((name) => html`<button class="button" aria-pressed=${name === span ? "true" : "false"}
            onClick=${() => setSpan(name)}>${t(`charts.range.${name}`)}</button>`)}
        </div></div>
      ${problem ? html`<p class="muted">${t("beats.problem", { problem: fmt.text(problem) })}</p>` : null}
      ${status.uplinks.filter(({ name }) => rows[name]).map(({ name }) => html`
        <${Life} key=${name} ...${{ name, beats: rows[name], span, t, fmt, onOpen: (beat) => ask({ name, beat }) }} />`)}
      <${Key} t=${t} />
      <${Incidents} ...${{ asked, onClose: () => ask(null), api, t, fmt }} />
    </section>`;
}

// One row: the arrow keys go along it, Enter opens.
function Life({ name, beats, span, t, fmt, onOpen }) {
  const [at, setAt] = useState(beats.length - 1);
  const row = useRef(null);
  const known = beats.reduce((sum, beat) => sum + beat.up + beat.degraded + beat.down, 0);
  const good = beats.reduce((sum, beat) => sum + beat.up + beat.degraded, 0);
  const go = (event) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: beats.length - 1 }[event.key];
    if (to === undefined || to < 0 || to >= beats.length) return;
    event.preventDefault();
    setAt(to);
    row.current.children[to].focus();
  };
  return html`
    <div class="life">
      <span class="name">${fmt.text(name)}</span>
      <span class="num">${known ? fmt.percent(good / known, 4) : "–"}</span>
      <div class="row" ref=${row} role="group" aria-label=${t("beats.row", { name: fmt.text(name) })} onKeyDown=${go}>
        ${beats.map((beat, n) => {
          const text = told(beat, span, t, fmt);
          return html`<button class="beat ${kind(beat)}" key=${beat.start} tabindex=${n === at ? 0 : -1} title=${text}
            aria-label=${text} onFocus=${() => setAt(n)} onClick=${() => onOpen(beat)}>
            <${Bar} state="degraded" part=${beat.degraded && (beat.degraded + beat.down) / beat.seconds} />
            <${Bar} state="down" part=${beat.down / beat.seconds} /></button>`;
        })}
      </div>
    </div>`;
}

const Bar = ({ state, part }) =>
  part > 0 ? html`<i class=${state} style=${{ height: `${100 * Math.max(LEAST, part)}%` }}></i>` : null;

const kind = (beat) => {
  const known = beat.up + beat.degraded + beat.down + beat.off;
  return known < beat.seconds * 0.02 ? "unknown" : beat.off > known / 2 ? "off" : "known";
};

function told(beat, span, t, fmt) {
  const from = new Date(beat.start);
  const to = new Date(from.getTime() + beat.seconds * 1000);
  const when = span === "24h" ? `${fmt.minute(from)}–${fmt.minute(to)}` : fmt.day(from);
  const parts = ["down", "degraded", "off"].filter((state) => beat[state] >= 0.5)
    .map((state) => t(`beats.${state}`, { span: fmt.span(beat[state]) }));
  if (!parts.length) parts.push(t(kind(beat) === "unknown" ? "beats.unknown" : "beats.well"));
  return [`${when}: ${parts.join(", ")}`, ...beat.reasons.map(fmt.text)].join("\n");
}

const Key = ({ t }) => html`
  <p class="key muted">${["well", "degraded", "down", "off", "unknown"].map((state) =>
    html`<span><i class="beat ${state === "well" ? "known" : state}">${["down", "degraded"].includes(state)
      ? html`<${Bar} state=${state} part=${0.6} />` : null}</i>${t(`beats.key.${state}`)}</span>`)}</p>`;

function Incidents({ asked, onClose, api, t, fmt }) {
  const [answer, setAnswer] = useState(null);
  useEffect(() => {
    setAnswer(null);
    if (!asked) return undefined;
    let current = true;
    const { name, beat } = asked;
    const until = new Date(new Date(beat.start).getTime() + beat.seconds * 1000).toISOString();
    api.get("/v1/incidents", { uplink: name, since: beat.start, until }).then(
      (found) => current && setAnswer(found),
      (error) => current && setAnswer({ incidents: [], more: false, problem: error.message }));
    return () => { current = false; };
  }, [asked]);
  return html`
    <${Dialog} open=${Boolean(asked)} onClose=${onClose} close=${t("dialog.close")}
      title=${asked ? t("incidents.title", { name: fmt.text(asked.name), time: fmt.time(asked.beat.start) }) : ""}>
      ${!answer ? html`<p class="muted">${t("loading")}</p>` : answer.problem
        ? html`<p>${t("beats.problem", { problem: fmt.text(answer.problem) })}</p>` : !answer.incidents.length
        ? html`<p>${t("incidents.none")}</p>` : answer.incidents.map((incident) => html`
          <article class="incident" key=${incident.id}>
            <h3><${Icon} tone=${incident.state} />${wordOf(incident.state, t)}: ${fmt.text(incident.reason)}</h3>
            <p class="muted">${incident.until
              ? t("incidents.over", { from: fmt.time(incident.since), to: fmt.time(incident.until), span: fmt.span(incident.seconds) })
              : t("incidents.lasts", { from: fmt.time(incident.since), span: fmt.span(incident.seconds) })}</p>
            ${incident.evidence.length ? html`<ul>${incident.evidence.map((line) => html`<li>${fmt.text(line)}</li>`)}</ul>` : null}
          </article>`)}
      ${answer && answer.more ? html`<p class="muted">${t("incidents.more")}</p>` : null}
    <//>`;
}
