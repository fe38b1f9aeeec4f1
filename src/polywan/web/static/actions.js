// Take an uplink out of use, back into use, or test it: first what it will do, in numbers; then what came of it, and Undo.
import { Dialog, html, useEffect, useRef, useState, useStore } from "./ui.js";
import { Failure, useAnswer } from "./parts.js";
import { Icon, wordOf } from "./states.js";
import { Token } from "./token.js";

const OUT_OF_USE = ["disabled", "draining", "drained"];
const DEADLINES = ["1m", "10m", "1h", "6h"];
const MOST_RESULTS = 3;
let number = 0;

// Orders that make sense for an uplink as it is.
function ordersFor({ state }) {
  return [...(OUT_OF_USE.includes(state) ? ["enable"] : ["drain", "disable"]), "test"];
}

const titleOf = (order, uplink, t) => (order ? t(`actions.${order}_uplink`, { uplink }) : "");

// The buttons of one uplink. Whoever may not act sees what would happen, and how to get the right.
export function CardActions({ store, api, t, fmt, uplink }) {
  const [order, setOrder] = useState(null);
  const { name } = uplink;
  const go = (how) => {
    setOrder(null);
    give({ store, api }, { uplink: name, order, ...how });
  };
  return html`<div class="s-orders" role="group" aria-label=${t("actions.of", { uplink: name })}>
    ${ordersFor(uplink).map((each) => html`<button type="button" class="button" key=${each}
      aria-label=${titleOf(each, name, t)} onClick=${() => setOrder(each)}>${t(`actions.${each}`)}</button>`)}
    <${Dialog} open=${order !== null} onClose=${() => setOrder(null)} title=${titleOf(order, name, t)}
      close=${t("actions.cancel")}>
      ${order && html`<${Preview} ...${{ store, api, t, fmt }} uplink=${name} order=${order} onGo=${go} />`}
    <//>
  </div>`;
}

// Give an order. What came of it joins `results` in the store, in the place of the uplink's last one. `undoes`: it takes that one back.
async function give({ store, api }, { uplink, order, deadline, undo, undoes = false }) {
  const key = ++number;
  const put = (result) => {
    const others = (store.state.results ?? []).filter((each) => each.uplink !== uplink);
    const made = { key, uplink, order, undone: undoes, ...result };
    store.set({ results: [made, ...others].slice(0, MOST_RESULTS) });
  };
  put({ busy: true });
  try {
    put({ answer: await api.post(api.uplink(uplink, order), {}, { deadline }), undo });
  } catch (error) {
    put({ error, undo: undoes ? order : undefined });
  }
}

function Preview({ uplink, order, store, api, t, fmt, onGo }) {
  useStore(store, "scopes");
  const [chosen, setDeadline] = useState("10m");
  const deadline = order === "drain" ? chosen : undefined;
  const { answer, error } = useAnswer(() => api.get(api.uplink(uplink, "effect"), { order, deadline }), true, 0, [deadline]);
  const submit = (event) => {
    event.preventDefault();
    onGo({ deadline, undo: answer.undo });
  };
  return html`<p>${t(`actions.${order}_means`)}</p>
    <${Failure} error=${error} t=${t} />
    ${!answer && !error && html`<p class="s-none">${t("actions.counting")}</p>`}
    ${answer && html`<${Effect} effect=${answer} t=${t} fmt=${fmt} />`}
    <${Token} store=${store} api=${api} t=${t} />
    <form onSubmit=${submit}>
      ${order === "drain" && html`<label>${t("actions.deadline")}${" "}
        <select value=${chosen} onChange=${(event) => setDeadline(event.target.value)}>
          ${DEADLINES.map((each) => html`<option key=${each} value=${each}>${t(`actions.after_${each}`)}</option>`)}
        </select></label>`}
      ${store.may("act") && html`<div class="s-buttons">
        <button type="submit" class="button ${answer?.unserved.length ? "s-danger" : "s-main"}" disabled=${!answer}>
          ${titleOf(order, uplink, t)}</button></div>`}
    </form>`;
}

// What an order would do: connections, shares before and after, and which policies it leaves without an uplink.
function Effect({ effect, t, fmt }) {
  const { shares_before: before, shares_after: after } = effect;
  const names = Object.keys({ ...before, ...after });
  const changes = names.some((name) => (before[name] ?? 0) !== (after[name] ?? 0));
  const shares = changes
    ? html`<${Shares} names=${names} before=${before} after=${after} t=${t} fmt=${fmt} />`
    : html`<p>${t("actions.same_shares")}</p>`;
  return html`${effect.order !== "test" && html`<dl class="s-numbers">
      <div><dt>${t("actions.connections")}</dt><dd>${fmt.number(effect.connections)}</dd></div>
      <div><dt>${t("actions.ended")}</dt><dd>${fmt.number(effect.ended)}</dd></div>
    </dl>`}
    ${effect.unserved.length > 0 && html`<p class="s-danger-text" role="alert">
      ${t("actions.unserved", { policies: effect.unserved.map(fmt.text).join(", ") })}</p>`}
    ${effect.order !== "test" && shares}
    ${effect.text.length > 0 && html`<details><summary>${t("actions.text")}</summary><ul class="s-notes" lang="en">
      ${effect.text.map((line) => html`<li key=${line}>${fmt.text(line)}</li>`)}</ul></details>`}`;
}

function Shares({ names, before, after, t, fmt }) {
  const wide = (part) => ({ width: `${100 * part}%` });
  const share = (part) => html`<td role="cell"><span class="s-bar" aria-hidden="true">
    <i class="series-0" style=${wide(part)}></i></span> ${fmt.percent(part)}</td>`;
  return html`<table role="table" class="s-table s-shares" aria-label=${t("actions.shares")}>
    <thead role="rowgroup"><tr role="row">
      <th role="columnheader" scope="col">${t("actions.shares")}</th>
      <th role="columnheader" scope="col">${t("actions.now")}</th>
      <th role="columnheader" scope="col">${t("actions.then")}</th>
    </tr></thead>
    <tbody role="rowgroup">${names.map((name) => html`<tr role="row" key=${name}>
      <th role="rowheader" scope="row">${fmt.text(name)}</th>
      ${share(before[name] ?? 0)}${share(after[name] ?? 0)}</tr>`)}</tbody>
  </table>`;
}

// What came of orders, over the page until it is closed.
export function Results({ store, api, t, fmt }) {
  const { results = [] } = useStore(store, "results", "private");
  const drop = (key) => store.set({ results: results.filter((each) => each.key !== key) });
  return html`<div class="s-results" role="status" aria-live="polite">
    ${results.map((result) => html`<${Result} key=${result.key} result=${result} t=${t} fmt=${fmt}
      onDrop=${() => drop(result.key)}
      onUndo=${() => give({ store, api }, { uplink: result.uplink, order: result.undo, undoes: true })} />`)}
  </div>`;
}

function Result({ result, t, fmt, onUndo, onDrop }) {
  const { uplink, order, answer, error, undo, busy } = result;
  const box = useRef(null);
  // The button that was pressed may be gone by now, and the focus with it.
  useEffect(() => box.current.focus(), [busy]);
  const tone = error || answer?.verdict === "down" ? "bad" : busy ? "idle" : answer.verdict === "degraded" ? "warn" : "ok";
  return html`<div class=${`s-result tone-${tone}`} ref=${box} tabindex="-1">
    <p><${Icon} tone=${tone} /> <strong>${headline(result, t)}</strong> <span lang="en">
      ${error ? error.message : fmt.text(answer?.reason ?? "")}</span></p>
    ${answer?.complete === false && html`<p class="s-warning">${t("actions.incomplete")}</p>`}
    ${answer?.layers && html`<dl class="s-layers">${answer.layers.map((layer) =>
      html`<${Layer} key=${layer.layer} layer=${layer} t=${t} fmt=${fmt} />`)}</dl>`}
    ${answer?.warnings?.map((text) => html`<p class="s-warning" lang="en" key=${text}>${fmt.text(text)}</p>`)}
    ${!busy && html`<div class="s-buttons">
      ${undo && html`<button type="button" class="button s-main" onClick=${onUndo}
        aria-label=${t("actions.undo_uplink", { uplink, order: t(`actions.${order}`) })}>${t("actions.undo")}</button>`}
      <button type="button" class="button" onClick=${onDrop}>${t("dialog.close")}</button></div>`}
  </div>`;
}

function headline({ uplink, order, answer, error, busy, undone }, t) {
  if (busy) return t("actions.busy", { order: titleOf(order, uplink, t) });
  if (error) return t("actions.refused", { order: titleOf(order, uplink, t) });
  if (answer.verdict) return t(`actions.verdict_${answer.verdict}`, { uplink });
  return t(undone ? "actions.undone" : "actions.done", { uplink, state: wordOf(answer.state, t) });
}

const TONES = { ok: "ok", broken: "bad" };

function Layer({ layer, t, fmt }) {
  const { verdict } = layer;
  const tone = TONES[verdict] ?? "off";
  return html`<div class=${`tone-${tone}`}>
    <dt><${Icon} tone=${tone} /> ${layer.layer} <small>${t(`actions.layer_${verdict}`)}</small></dt>
    <dd lang="en">${fmt.text(layer.detail)}</dd>
  </div>`;
}
