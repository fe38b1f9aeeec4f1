// What a changed file would do: the one on disk, and one that is written here. Nothing is saved, and nothing put in force.
import { html, useEffect, useRef, useState, useStore } from "./ui.js";
import { Failure, Problems, lineOf, useAnswer, useSeen } from "./parts.js";
import { compared, hunks } from "./diff.js";
import { Icon } from "./states.js";
import { Token } from "./token.js";

const PERIOD_S = 10;
const MOST_SHOWN = 200;
const TRY = "sudo polywan try FILE";

export function Plan({ store, api, t, fmt }) {
  const box = useRef(null);
  const seen = useSeen(box);
  const { answer, error } = useAnswer(() => api.get("/v1/pending"), seen, PERIOD_S, []);
  return html`<div ref=${box} class="s-plan">
    <${Failure} error=${error} t=${t} />
    ${answer && html`<${Pending} pending=${answer} t=${t} fmt=${fmt} />`}
    ${answer && html`<${Editor} texts=${answer.on_disk} store=${store} api=${api} t=${t} fmt=${fmt} />`}
  </div>`;
}

// The files on disk beside those in force.
function Pending({ pending, t, fmt }) {
  const { in_force: before, on_disk: after, operations: ops, warnings } = pending;
  if (!pending.differs) return html`<p class="s-fine tone-ok"><${Icon} tone="ok" /> ${t("plan.same")}</p>`;
  return html`<p class="s-warning">${t("plan.differs")}</p>
    <div class="s-columns">
      <div>${pending.files.map((name) =>
        html`<${Changes} key=${name} name=${name} before=${before[name] ?? ""} after=${after[name] ?? ""} t=${t} />`)}</div>
      <${Outcome} problems=${pending.problems} planned=${{ ops, warnings }} changes=${pending.changes} t=${t} fmt=${fmt} />
    </div>`;
}

function Changes({ name, before, after, t }) {
  const kinds = { "-": "s-out", "+": "s-in", " ": "" };
  return html`<figure class="s-diff"><figcaption>${t("plan.changes", { file: name })}</figcaption>
    <pre tabindex="0">${hunks(compared(before, after)).map((row, at) => (row === null
      ? html`<span key=${at} class="s-cut">⋯${"\n"}</span>`
      : html`<span key=${at} class=${kinds[row[0]]}>${row[0]} ${row[1]}${"\n"}</span>`))}</pre>
  </figure>`;
}

// What a configuration would change, or why it cannot.
function Outcome({ problems, planned, changes = [], t, fmt, onLine }) {
  if (problems?.length) {
    return html`<div class="s-outcome"><h3>${t("plan.problems")}</h3>
      <${Problems} problems=${problems} t=${t} onLine=${onLine} /></div>`;
  }
  if (!planned) return null;
  const { ops, warnings } = planned;
  return html`<div class="s-outcome">
    <ul class="s-notes" lang="en">${changes.map((text) => html`<li key=${text}>${fmt.text(text)}</li>`)}</ul>
    <h3>${ops.length ? t("plan.operations", { n: ops.length }) : t("plan.nothing")}</h3>
    ${warnings.map((text) => html`<p class="s-warning" lang="en" key=${text}>${fmt.text(text)}</p>`)}
    ${ops.length > 0 && html`<ol class="s-ops" tabindex="0" aria-label=${t("plan.operations", { n: ops.length })}>
      ${ops.slice(0, MOST_SHOWN).map((each, at) => html`<li key=${at} lang="en"><code>${each.op}</code> ${fmt.text(each.text)}</li>`)}</ol>`}
    ${ops.length > MOST_SHOWN && html`<p class="s-none">${t("plan.more", { n: ops.length - MOST_SHOWN })}</p>`}
  </div>`;
}

function Editor({ texts, store, api, t, fmt }) {
  useStore(store, "scopes");
  const names = Object.keys(texts);
  const [drafts, setDrafts] = useState({});
  const [chosen, setChosen] = useState(null);
  const [found, setFound] = useState({});
  const field = useRef(null);
  const name = names.includes(chosen) ? chosen : names[0];
  const text = drafts[name] ?? texts[name] ?? "";
  const write = (value) => setDrafts({ ...drafts, [name]: value === texts[name] ? undefined : value });
  const allowed = store.may("act");
  const changed = names.some((each) => drafts[each] !== undefined);

  const plan = async () => {
    setFound((before) => ({ ...before, busy: true }));
    try {
      const files = Object.fromEntries(names.map((each) => [each, drafts[each] ?? texts[each]]));
      setFound({ planned: await api.post("/v1/plan", { files }) });
    } catch (error) {
      setFound(error.problems ? { problems: error.problems } : { error });
    }
  };
  const jump = (where) => {
    const file = names.find((each) => where.replace(/:\d+$/, "").endsWith(each)) ?? name;
    setChosen(file);
    requestAnimationFrame(() => select(field.current, lineOf(where)));
  };
  const reset = () => {
    setDrafts({});
    setFound({});
  };
  const keys = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && allowed) plan();
  };
  if (!names.length) return null;
  return html`<h3>${t("plan.write")}</h3>
    <p>${t.rich("plan.not_saved", { command: html`<code>${TRY}</code>` })}</p>
    <div class="s-columns">
      <div class="s-editor">
        ${names.length > 1 && html`<label>${t("plan.file")}${" "}
          <select value=${name} onChange=${(event) => setChosen(event.target.value)}>${names.map((each) =>
            html`<option key=${each} value=${each}>${drafts[each] === undefined ? each : `${each} *`}</option>`)}</select></label>`}
        <${Numbered} field=${field} label=${t("plan.text_of", { file: name })} text=${text} onText=${write} onKeyDown=${keys} />
        <div class="s-buttons">
          <button type="button" class="button s-main" disabled=${!allowed || found.busy} onClick=${plan}>
            ${t(found.busy ? "plan.planning" : "plan.plan")}</button>
          <button type="button" class="button" disabled=${!changed} onClick=${reset}>${t("plan.reset")}</button>
          <${Copy} text=${text} t=${t} />
        </div>
        <${Token} store=${store} api=${api} t=${t} />
      </div>
      <div aria-live="polite"><${Failure} error=${found.error} t=${t} />
        <${Outcome} ...${found} t=${t} fmt=${fmt} onLine=${jump} /></div>
    </div>`;
}

// A text with the numbers of its lines beside it.
function Numbered({ field, label, text, onText, onKeyDown }) {
  const gutter = useRef(null);
  const follow = () => {
    gutter.current.scrollTop = field.current.scrollTop;
  };
  useEffect(follow, [text]);
  const numbers = Array.from({ length: text.split("\n").length }, (_, at) => at + 1).join("\n");
  return html`<div class="s-numbered"><pre aria-hidden="true" ref=${gutter}>${numbers}</pre>
    <textarea ref=${field} aria-label=${label} value=${text} wrap="off" rows="16" spellcheck="false" autocapitalize="off"
      autocomplete="off"
      onInput=${(event) => onText(event.target.value)} onScroll=${follow} onKeyDown=${onKeyDown}></textarea></div>`;
}

function select(field, line) {
  const lines = field.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
  field.focus();
  field.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
  field.scrollTop = (field.scrollHeight / lines.length) * Math.max(0, line - 4);
}

function Copy({ text, t }) {
  const [copied, setCopied] = useState(false);
  const copy = () => navigator.clipboard.writeText(text).then(() => setCopied(true), () => setCopied(false));
  useEffect(() => setCopied(false), [text]);
  if (!navigator.clipboard) return null;
  return html`<button type="button" class="button" onClick=${copy}>${t(copied ? "plan.copied" : "plan.copy")}</button>`;
}
