// The status as plain text, for somebody who helps; a button copies it.
import { Dialog, html, useRef, useState, useStore } from "./ui.js";
import { Results } from "./actions.js";
import { Token } from "./token.js";
import { stateOf, wordOf } from "./states.js";

// Lines that say how everything is: what is wrong first, as with `polywan status`.
function reportOf(status, t, fmt, now) {
  const lines = [t("report.head", { version: status.version, time: fmt.full(now) })];
  lines.push(t("report.since", { time: fmt.full(status.since), generation: status.generation }), "");
  const said = [
    ...status.warnings.map((text) => [t("report.warning"), text]),
    ...status.drift.map((text) => [t("report.drift"), text]),
  ];
  for (const [kind, text] of said) lines.push(`${kind}: ${fmt.text(text)}`);
  if (said.length) lines.push("");
  for (const uplink of status.uplinks) lines.push(...uplinkLines(uplink, t, fmt));
  for (const policy of status.policies.filter((each) => !each.direct)) {
    const members = policy.members.map((member) => `${member.uplink} ${fmt.percent(member.share)}`).join(", ");
    lines.push(`${policy.title} (${policy.algorithm}): ${members || t("report.nobody")}`);
  }
  return lines.join("\n");
}

function uplinkLines(uplink, t, fmt) {
  const facts = [
    uplink.interface,
    ...[uplink.address, uplink.address6].filter(Boolean).map((address) => fmt.text(address)),
    uplink.rtt_ms === null ? "" : `${t("report.rtt")} ${fmt.ms(uplink.rtt_ms)}`,
    uplink.loss === null ? "" : `${t("report.loss")} ${fmt.percent(uplink.loss)}`,
    `${t("report.share")} ${fmt.percent(uplink.share)}`,
    `↓ ${fmt.bits(uplink.rx_bps)} ↑ ${fmt.bits(uplink.tx_bps)}`,
  ];
  const since = uplink.since ? ` (${fmt.full(uplink.since)})` : "";
  const broken = Object.entries(uplink.layers).filter(([, layer]) => layer.state === "broken");
  return [
    `${uplink.name}: ${wordOf(stateOf(uplink), t)}${since}${uplink.reason ? `: ${fmt.text(uplink.reason)}` : ""}`,
    `  ${facts.filter(Boolean).join(" · ")}`,
    ...broken.map(([name, layer]) => `  ${name}: ${fmt.text(layer.detail)}`),
    "",
  ];
}

// Beside the header's switches: the button of the report, the way in for readers without a token, what came of orders.
export function Tools({ store, api, t, fmt }) {
  const { stale } = useStore(store, "stale");
  return html`<${CopyReport} store=${store} t=${t} fmt=${fmt} />
    ${stale === "refused" && html`<${Token} store=${store} api=${api} t=${t} scope="read" />`}
    <${Results} store=${store} api=${api} t=${t} fmt=${fmt} />`;
}

// Copies the report; where the browser does not allow that, shows it to be copied by hand.
function CopyReport({ store, t, fmt }) {
  const { status } = useStore(store, "status");
  const [said, setSaid] = useState("");
  const [shown, setShown] = useState(null);
  const timer = useRef(0);
  const copy = async () => {
    const text = reportOf(status, t, fmt, new Date().toISOString());
    try {
      await navigator.clipboard.writeText(text);
      setSaid(t("report.copied"));
      clearTimeout(timer.current);
      timer.current = setTimeout(setSaid, 4000, "");
    } catch {
      setShown(text);
    }
  };
  return html`<span class="s-report">
    <button type="button" class="button" disabled=${!status} onClick=${copy}>${t("report.copy")}</button>
    <span role="status">${said}</span>
    <${Dialog} open=${shown !== null} onClose=${() => setShown(null)} title=${t("report.title")} close=${t("dialog.close")}>
      <p>${t("report.by_hand")}</p>
      <textarea class="s-text" readonly rows="14" aria-label=${t("report.title")} value=${shown}
        onFocus=${(event) => event.target.select()}></textarea>
    <//>
  </span>`;
}
