// Which way would this connection take, and why: a question, and its answer drawn step by step.
import { html, useEffect, useRef, useState, useStore } from "./ui.js";
import { Failure, WHY, WHY_FIELDS, end, protocolName, whyLink } from "./parts.js";
import { Icon } from "./states.js";

const PROTOCOLS = ["tcp", "udp", "icmp", "sctp", "gre", "esp"];
const TONES = { good: "ok", warn: "warn", bad: "bad" };
const ASKED_FIRST = { from: "", to: "", protocol: "tcp", source_port: "", in_interface: "" };

// The question behind the `#`, or null.
function questionOf(fragment) {
  if (!fragment.startsWith(WHY)) return null;
  const words = new URLSearchParams(fragment.slice(WHY.length));
  return Object.fromEntries(WHY_FIELDS.map((name) => [name, words.get(name) ?? ASKED_FIRST[name]]));
}

export function Why({ store, api, t, fmt }) {
  const { status } = useStore(store, "status", "private");
  const box = useRef(null);
  const heading = useRef(null);
  const [question, setQuestion] = useState(() => questionOf(location.hash) ?? ASKED_FIRST);
  const [found, setFound] = useState({ answer: null, error: null, busy: false });
  const last = useRef(0);

  const ask = async (asked, goThere) => {
    const turn = ++last.current;
    setFound((before) => ({ ...before, busy: true }));
    let next;
    try {
      const words = Object.fromEntries(WHY_FIELDS.filter((name) => asked[name]).map((name) => [name, asked[name].trim()]));
      next = { answer: await api.get("/v1/why", words), error: null };
    } catch (error) {
      next = { answer: null, error };
    }
    if (turn !== last.current) return;
    setFound({ ...next, busy: false });
    if (goThere) requestAnimationFrame(() => heading.current?.focus());
  };
  useEffect(() => {
    const read = () => {
      const asked = questionOf(location.hash);
      if (!asked) return;
      setQuestion(asked);
      box.current.scrollIntoView();
      if (asked.to) ask(asked, true);
    };
    read();
    addEventListener("hashchange", read);
    return () => removeEventListener("hashchange", read);
  }, []);

  const submit = (event) => {
    event.preventDefault();
    history.replaceState(null, "", whyLink(question));
    ask(question, true);
  };
  const field = (name) => ({
    name,
    value: question[name],
    onInput: (event) => setQuestion({ ...question, [name]: event.target.value }),
    autocomplete: "off",
    spellcheck: false,
  });
  return html`<div ref=${box} class="s-why">
    <form class="s-filter" onSubmit=${submit}>
      <label>${t("why.from")} <input ...${field("from")} placeholder=${t("why.from_hint")} /></label>
      <label>${t("why.to")} <input ...${field("to")} required placeholder="203.0.113.10:443" /></label>
      <label>${t("why.protocol")} <input ...${field("protocol")} list="why-protocols" size="7" required />
        <datalist id="why-protocols">${PROTOCOLS.map((name) => html`<option key=${name} value=${name} />`)}</datalist></label>
      <label>${t("why.source_port")} <input ...${field("source_port")} inputmode="numeric" size="6" /></label>
      <label>${t("why.in_interface")} <input ...${field("in_interface")} size="10" placeholder=${t("why.auto")} /></label>
      <button type="submit" class="button s-main" disabled=${found.busy}>${t("why.ask")}</button>
    </form>
    <${Failure} error=${found.error} t=${t} />
    ${found.answer && html`<${Answer} answer=${found.answer} heading=${heading} t=${t} fmt=${fmt}
      titles=${new Map((status?.policies ?? []).map((each) => [each.name, each.title]))} />`}
  </div>`;
}

function Answer({ answer, heading, titles, t, fmt }) {
  const from = end(fmt.text(answer.source), answer.source_port);
  const to = end(fmt.text(answer.destination), answer.port);
  return html`<div class="s-answer" aria-live="polite">
    <h3 tabindex="-1" ref=${heading}>${from} → ${to}</h3>
    <ol class="s-path">${stepsOf(answer, titles, t, fmt).map((step) => html`<${Step} key=${step.key} ...${{ step, t, fmt }} />`)}</ol>
    <ul class="s-notes" lang="en">${answer.notes.map((note) => html`<li key=${note}>${fmt.text(note)}</li>`)}</ul>
    <details><summary>${t("why.text")}</summary><pre lang="en">${answer.text.map(fmt.text).join("\n")}</pre></details>
  </div>`;
}

// One station of the path. Colour, shape and word of `kind` say the same.
function Step({ step, t, fmt }) {
  const tone = TONES[step.kind];
  return html`<li class=${`s-step s-${step.kind}`}>
    <span class="s-sign" role="img" aria-label=${t(`why.kind.${step.kind}`)}>${tone && html`<${Icon} tone=${tone} size=${18} />`}</span>
    <div class="s-what"><strong>${fmt.text(step.title)}</strong>${step.at && html` <code class="s-place">${step.at}</code>`}
      ${step.lines.map((line) => html`<span class="s-line" lang=${line.lang}>${fmt.text(line.text)}</span>`)}
      ${step.facts && html`<dl>${step.facts.filter(([, value]) => value).map(
        ([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${fmt.text(value)}</dd></div>`)}</dl>`}
    </div>
  </li>`;
}

const own = (text) => ({ text });
const foreign = (text) => ({ text, lang: "en" });

// The stations of a connection's path, from its first packet to the kernel's own answer.
// `titles` are what people call policies: those that are made for single rules have names that say little.
function stepsOf(answer, titles, t, fmt) {
  return [
    {
      key: "packet", kind: "begin", title: protocolName(answer.protocol),
      lines: [own(answer.in_interface ? t("why.arrives", { device: answer.in_interface }) : t("why.from_box"))],
    },
    ...answer.rules.map((rule) => ruleStep(rule, t)),
    ...policySteps(answer, titles, t),
    ...answer.uplinks.map((offered) => uplinkStep(answer, offered, t, fmt)),
    outcomeStep(answer, t),
    ...kernelSteps(answer, t),
  ];
}

function ruleStep(rule, t) {
  const how = rule.excluded ? "why.excluded" : "why.needed";
  return {
    key: `rule ${rule.number}`, kind: rule.matched ? "match" : "pass", at: rule.at,
    title: t("why.rule", { number: rule.number }),
    lines: [own(rule.matched ? t("why.matches") : t(how, { condition: rule.failed, seen: rule.seen }))],
  };
}

function policySteps(answer, titles, t) {
  if (answer.policy === null) return [];
  const lines = [];
  if (answer.rule === null) lines.push(own(t(answer.rules.length ? "why.no_match" : "why.no_rules")));
  if (answer.tier === null) lines.push(own(t("why.no_tier")));
  lines.push(foreign(answer.reason));
  if (answer.specific_route) lines.push(own(t("why.specific_route")));
  if (answer.native) lines.push(own(t("why.native")));
  if (answer.affinity) lines.push(own(t("why.affinity")));
  if (answer.hash) lines.push(own(t("why.hash", { ...answer.hash, key: answer.hash.key.join(", ") })));
  const tier = answer.tier === null ? "" : t("why.tier", { number: answer.tier + 1 });
  const name = titles.get(answer.policy) ?? t("why.policy", { name: answer.policy });
  const title = [name, tier, answer.algorithm].filter(Boolean).join(" · ");
  return [{ key: "policy", kind: tier ? "match" : "warn", title, lines }];
}

function uplinkStep(answer, offered, t, fmt) {
  const seen = answer.outcome !== "outside";
  const share = offered.share === 1 ? "" : ` · ${fmt.percent(offered.share)}`;
  return {
    key: `uplink ${offered.name}`, kind: "uplink", title: offered.name + share, lines: [],
    facts: [
      [t("why.device"), offered.interface],
      [t("why.gateway"), offered.gateway],
      [t("why.mark"), offered.mark ? `0x${offered.mark.toString(16)}` : ""],
      [t("why.table"), offered.table],
      [t("why.server_sees"), seen && offered.server_sees],
      [t("why.nat"), seen && offered.nat],
    ],
  };
}

const OUTCOMES = {
  uplink: "good", bound: "good", outside: "good", main: "good", here: "good", refused: "bad", dropped: "bad",
};

function outcomeStep(answer, t) {
  const known = answer.outcome in OUTCOMES;
  const either = new Intl.ListFormat(document.documentElement.lang, { type: "disjunction" });
  const uplinks = either.format(answer.uplinks.map((offered) => offered.name));
  const values = { uplinks, device: answer.interface ?? "–" };
  return {
    key: "outcome", kind: OUTCOMES[answer.outcome] ?? "warn",
    title: known ? t(`why.outcome.${answer.outcome}`, values) : answer.outcome,
    lines: answer.policy === null ? [foreign(answer.reason)] : [],
  };
}

function kernelSteps(answer, t) {
  return answer.kernel.map((kernel, place) => {
    const table = kernel.table ? t("why.in_table", { number: kernel.table }) : "";
    const route = [kernel.kind, kernel.interface, kernel.gateway, table];
    const whose = answer.kernel.length > 1 && kernel.uplink ? ` · ${kernel.uplink}` : "";
    return {
      key: `kernel ${place}`, kind: kernel.agrees ? "good" : "bad",
      title: t(kernel.agrees ? "why.kernel_agrees" : "why.kernel_disagrees") + whose,
      lines: [own(route.filter(Boolean).join(" · ")), ...(kernel.trouble ? [foreign(kernel.trouble)] : [])],
    };
  });
}
