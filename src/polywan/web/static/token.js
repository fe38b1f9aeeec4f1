// The right to read or to act: how to get a token, and a field to enter it. It is kept until the tab is closed.
import { html, useState, useStore } from "./ui.js";

const COMMANDS = { read: "sudo polywan web token add NAME", act: "sudo polywan web token add NAME --scope act" };

// What to do without a scope: one sentence, and a field for the token. Nothing for those who have it.
export function Token({ store, api, t, scope = "act" }) {
  useStore(store, "scopes");
  const [text, setText] = useState("");
  const [trouble, setTrouble] = useState("");
  if (store.may(scope)) return null;
  const enter = async (event) => {
    event.preventDefault();
    const before = api.token;
    api.token = text.trim();
    try {
      const { scopes, name } = await api.whoami();
      store.set({ scopes, who: name, refusal: null });
      setText("");
      setTrouble(scopes.includes(scope) ? "" : t("token.not_enough"));
    } catch (error) {
      api.token = before;
      setTrouble([401, 403].includes(error.status) ? t("token.refused") : error.message);
    }
  };
  return html`<form class="s-token" onSubmit=${enter}>
    <p>${t.rich(`token.how.${scope}`, { command: html`<code>${COMMANDS[scope]}</code>` })}</p>
    <div class="s-filter">
      <label>${t("token.token")} <input type="password" value=${text} required autocomplete="off" maxlength="200"
        onInput=${(event) => setText(event.target.value)} /></label>
      <button type="submit" class="button s-main">${t("token.enter")}</button>
    </div>
    <p class="s-warning" role="alert">${trouble}</p>
  </form>`;
}
