// What every part of the page is made with: preact, its hooks, and templates.
import { h } from "./vendor/preact.js";
import { useEffect, useLayoutEffect, useRef, useState } from "./vendor/hooks.js";

export { h, render, Fragment, createRef } from "./vendor/preact.js";
export { useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback } from "./vendor/hooks.js";

const HOLE = "\u0001";
const TOKEN = /<!--[^]*?-->|<\/[^>]*>|<([^\s>/]+)((?:"[^"]*"|'[^']*'|[^"'>])*?)(\/?)>|[^<]+/g;
const ATTRIBUTE = /\.\.\.\u0001|([^\s=]+)(?:\s*=\s*("[^"]*"|'[^']*'|\u0001))?/g;
const programs = new WeakMap();

// A template is read once. Its values never become markup: they are children, properties or components.
// Understood: <tag a="b" c=${d} e="f ${g}" disabled ...${props}/>, <${Component}>, </tag>, <//>, <!-- -->.
export function html(strings, ...values) {
  let program = programs.get(strings);
  if (!program) programs.set(strings, (program = parse(strings)));
  const made = program.map((node) => build(node, values));
  return made.length > 1 ? made : made[0];
}

function parse(strings) {
  let holes = 0;
  const split = (text) => {
    const parts = [];
    text.split(HOLE).forEach((part, at) => {
      if (at) parts.push(holes++);
      if (part) parts.push(part);
    });
    return parts;
  };
  const open = [[]];
  for (const [token, tag, attributes, closed] of strings.join(HOLE).matchAll(TOKEN)) {
    const parent = open[open.length - 1];
    if (token.startsWith("<!--")) split(token);
    else if (token.startsWith("</")) {
      split(token);
      open.pop();
    } else if (tag) {
      const node = { tag: split(tag)[0], set: [], kids: [] };
      for (const [whole, name, value] of attributes.matchAll(ATTRIBUTE)) {
        if (!name) node.set.push([null, split(whole)[1]]);
        else if (value === undefined) node.set.push([name, true]);
        else node.set.push([name, split(value === HOLE ? value : value.slice(1, -1)), value !== HOLE]);
      }
      parent.push(node);
      if (!closed) open.push(node.kids);
    } else parent.push(...split(token.replace(/^\s*\n\s*|\s*\n\s*$/g, "")));
  }
  if (open.length !== 1) throw new SyntaxError("template: " + strings.join("…"));
  return open[0];
}

const filled = (part, values) => (typeof part === "number" ? values[part] : part);

function build(node, values) {
  if (typeof node !== "object") return filled(node, values);
  const props = {};
  for (const [name, parts, text] of node.set) {
    if (name === null) Object.assign(props, values[parts]);
    else if (parts === true) props[name] = true;
    else if (!text) props[name] = values[parts[0]];
    else props[name] = parts.map((part) => filled(part, values)).join("");
  }
  return h(filled(node.tag, values), props, ...node.kids.map((kid) => build(kid, values)));
}

// The state of the store; the component is drawn anew when one of these keys changes. It subscribes before anything
// else can happen: what came after the drawing and before it would be missed.
export function useStore(store, ...keys) {
  const [, again] = useState(0);
  useLayoutEffect(() => store.subscribe(keys, () => again((n) => n + 1)), [store, keys.join()]);
  return store.state;
}

// A mount for what is drawn anew every so often, such as "3 min ago".
export function useEvery(milliseconds) {
  const [, again] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => again((n) => n + 1), milliseconds);
    return () => clearInterval(timer);
  }, [milliseconds]);
}

// Whether a part is on the screen, or nearly: what nobody sees need not be computed every second.
export function useVisible(place) {
  const [visible, setVisible] = useState(false);
  useEffect(() => {
    if (!place.current) return undefined;
    const observer = new IntersectionObserver(([entry]) => setVisible(entry.isIntersecting), { rootMargin: "200px" });
    observer.observe(place.current);
    return () => observer.disconnect();
  }, [place.current]);
  return visible;
}

// A dialog over the page: Escape, the button and a click beside it close it; the browser gives the focus back.
export function Dialog({ open, onClose, title, close, children }) {
  const place = useRef(null);
  useEffect(() => {
    if (open && !place.current.open) place.current.showModal();
    if (!open && place.current.open) place.current.close();
  }, [open]);
  return html`
    <dialog ref=${place} aria-label=${title} onClose=${onClose}
      onClick=${(event) => event.target === place.current && place.current.close()}>
      ${open ? html`<div class="dialog">
        <div class="title"><h2>${title}</h2><button class="button" onClick=${() => place.current.close()}>${close}</button></div>
        ${children}</div>` : null}
    </dialog>`;
}
