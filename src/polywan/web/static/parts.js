// What several sections are made of: answers that are asked for again, dialogs, refusals, bars.
import { html, useEffect, useRef, useState, useVisible } from "./ui.js";

// Is this element on the screen, and the page in front? What nobody sees asks the daemon nothing.
export function useSeen(box) {
  const visible = useVisible(box);
  const [front, setFront] = useState(!document.hidden);
  useEffect(() => {
    const turned = () => setFront(!document.hidden);
    document.addEventListener("visibilitychange", turned);
    return () => document.removeEventListener("visibilitychange", turned);
  }, []);
  return visible && front;
}

// Ask while `on`, again every `seconds` (0: once), and at once when one of `about` changes.
// Returns the last answer, which stays while the next one is under way, or fails.
export function useAnswer(ask, on, seconds, about) {
  const [last, setLast] = useState({ answer: null, error: null });
  const question = JSON.stringify(about);
  const wanted = useRef(question);
  wanted.current = question;
  useEffect(() => {
    if (!on) return undefined;
    let timer = 0;
    let over = false;
    const take = (some) => wanted.current === question && setLast((before) => ({ ...before, ...some }));
    const once = async () => {
      try {
        take({ answer: await ask(), error: null });
      } catch (error) {
        take({ error });
      }
      if (!over && seconds) timer = setTimeout(once, 1000 * seconds);
    };
    once();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [on, question]);
  return last;
}

// Returns a function that calls `done` once nobody has called it for `ms`.
export function useDelayed(done, ms) {
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (value) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(done, ms, value);
  };
}

// Why there is no answer; nothing without an error. What the daemon says is English.
export function Failure({ error, t }) {
  if (!error) return null;
  return html`<div class="s-failure" role="alert">
    <strong>${t("sections.failed")}</strong> <span lang="en">${error.message}</span>
    <${Problems} problems=${error.problems} t=${t} />
  </div>`;
}

// Problems of a configuration, each with its place.
export function Problems({ problems, t, onLine }) {
  if (!problems?.length) return null;
  return html`<ul class="s-problems" lang="en">
    ${problems.map(
      (p) => html`<li>
        ${onLine && lineOf(p.where)
          ? html`<button type="button" class="s-place" onClick=${() => onLine(p.where)} title=${t("sections.to_line")}>
              ${p.where}
            </button>`
          : html`<code class="s-place">${p.where}</code>`}${" "}
        ${p.key && html`<code>${p.key}</code>`} ${p.message}${p.hint && html` <em>${p.hint}</em>`}
      </li>`,
    )}
  </ul>`;
}

// The line number at the end of a place such as "polywan.toml:7"; 0 without one.
export const lineOf = (where) => Number(/:(\d+)$/.exec(where)?.[1] ?? 0);

// How parts share a whole, as a bar; `parts` are [name, number, index of its colour]. The text stands beside it.
export function SplitBar({ parts, label }) {
  const total = parts.reduce((sum, [, number]) => sum + number, 0) || 1;
  return html`<span class="s-bar" role="img" aria-label=${label} title=${label}>
    ${parts.map(
      ([name, number, index]) =>
        number > 0 && html`<i key=${name} class="series-${index % 8}" style=${{ width: `${(100 * number) / total}%` }}></i>`,
    )}
  </span>`;
}

// Bytes both ways; a dash where nobody counted.
export function Volume({ down, up, t, fmt }) {
  if (down === null || up === null) return "–";
  return html`<span title=${t("connections.down")}>↓ ${fmt.bytes(down)}</span>${" "}
    <span title=${t("connections.up")}>↑ ${fmt.bytes(up)}</span>`;
}

// Address and port as people write them.
export const end = (address, port) =>
  port === null || port === undefined ? address : address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;

const PROTOCOLS = {
  1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 58: "icmpv6", 132: "sctp", 136: "udplite",
};

// The name of a protocol's number, or the number.
export const protocolName = (number) => PROTOCOLS[number] ?? String(number);

// Words of a question to `/v1/why` that the page asks, and where its form is.
export const WHY_FIELDS = ["from", "to", "protocol", "source_port", "in_interface"];
export const WHY = "#why?";

// The part of an address behind the `#` that asks this question; it can be sent to somebody else.
export function whyLink(asked) {
  const words = WHY_FIELDS.filter((name) => asked[name]).map((name) => [name, String(asked[name])]);
  return WHY + new URLSearchParams(words);
}
