// Throughput, round trips and loss over time, with one cursor. The window slides; what is not known is a gap.
import { html, useEffect, useRef, useState, useStore, useVisible } from "./ui.js";
import { hidden, lines, mixed, seriesOf } from "./measured.js";

const RANGES = { "10min": 600, "1h": 3600, "24h": 86400, "30d": 30 * 86400 };
const POINTS = 600;
const SPARSE = 60; // samples; with fewer, those before are taken from the measurements
const REFRESH = 10; // seconds between two requests, at least

export function Charts({ store, api, t, fmt, theme }) {
  const { status, samples, stale } = useStore(store, "status", "samples", "stale", "private");
  const [range, setRange] = useState("10min");
  const [answer, setAnswer] = useState({ step_s: 1, series: [], problem: "" });
  const [at, setAt] = useState(null);
  const place = useRef(null);
  const drawn = useRef(null);
  const visible = useVisible(place);
  const seconds = RANGES[range];

  useEffect(() => {
    if (stale === "paused") return undefined;
    let current = true;
    const ask = async () => {
      const since = new Date(Date.now() - seconds * 1000).toISOString();
      try {
        const found = await api.get("/v1/measurements", { since, points: POINTS });
        if (!current) return;
        if (store.state.samples.length < SPARSE) store.take("past", found);
        setAnswer(found);
      } catch (error) {
        if (current) setAnswer({ step_s: Math.max(1, Math.round(seconds / POINTS)), series: [], problem: error.message });
      }
    };
    ask();
    const timer = setInterval(ask, 1000 * Math.max(REFRESH, seconds / POINTS));
    return () => {
      current = false;
      clearInterval(timer);
    };
  }, [seconds, stale === "paused"]);

  if (!status) return null;
  const now = samples.length ? samples[samples.length - 1].at / 1000 : Date.now() / 1000;
  if (visible || !drawn.current) {
    drawn.current = seriesOf(status.uplinks.map((uplink) => uplink.name), answer, samples, now, seconds);
  }
  const data = drawn.current;
  const shown = at === null || at >= data.times.length ? data.times.length - 1 : at;
  return html`
    <section class="card charts" id="charts" tabindex="-1" ref=${place} aria-label=${t("charts.title")}>
      <div class="title"><h2>${t("charts.title")}</h2>
        <div class="choice" role="group" aria-label=${t("charts.range")}>
          ${Object.keys(RANGES).map((name) => html`<button class="button" aria-pressed=${name === range ? "true" : "false"}
            onClick=${() => { setAt(null); setRange(name); }}>${t(`charts.range.${name}`)}</button>`)}
        </div>
      </div>
      ${answer.problem ? html`<p class="muted">${t("charts.problem", { problem: fmt.text(answer.problem) })}</p>` : null}
      <${Plots} ...${{ data, t, fmt, theme, onCursor: setAt, range: [now - seconds, now] }} />
      <${Legend} ...${{ data, shown, fixed: at !== null, t, fmt, long: seconds > 86400 / 2 }} />
    </section>`;
}

// The three charts. They are made anew when the uplinks, the theme or the language change, else only filled.
function Plots({ data, t, fmt, theme, onCursor, range }) {
  const place = useRef(null);
  const made = useRef([]);
  const latest = useRef({});
  latest.current = { data, range, onCursor };
  const signature = `${data.names.map(String).join("\n")}|${theme}`;
  useEffect(() => {
    const host = place.current;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const build = () => {
      for (const plot of made.current) plot.destroy();
      made.current = lines(data.names, host, fmt).map((chart, n) => newPlot(chart, host.children[n].lastChild, latest, fmt));
      fill(made.current, latest.current.data);
    };
    build();
    const resize = new ResizeObserver(() => {
      for (const plot of made.current) plot.setSize({ width: host.clientWidth, height: plot.height });
    });
    resize.observe(host);
    dark.addEventListener("change", build);
    return () => {
      dark.removeEventListener("change", build);
      resize.disconnect();
      for (const plot of made.current) plot.destroy();
      made.current = [];
    };
  }, [signature]);
  useEffect(() => fill(made.current, data));
  const onKey = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const [plot] = made.current;
    if (!step || !plot) return;
    event.preventDefault();
    const from = plot.cursor.idx ?? data.times.length - 1;
    const to = Math.max(0, Math.min(data.times.length - 1, from + step * (event.shiftKey ? 10 : 1)));
    for (const each of made.current) each.setCursor({ left: each.valToPos(data.times[to], "x"), top: 10 });
  };
  return html`
    <div class="plots" ref=${place} tabindex="0" role="group" aria-label=${t("charts.keys")} onKeyDown=${onKey}>
      ${["throughput", "rtt", "loss"].map((what) => html`<figure key=${what}>
        <figcaption>${t(`charts.${what}`)}</figcaption><div class="plot"></div></figure>`)}
    </div>`;
}

const fill = (plots, data) =>
  plots.forEach((plot, n) => plot.setData([data.times, ...[data.throughput, data.rtt, data.loss][n]]));

function newPlot(chart, host, latest, fmt) {
  const style = getComputedStyle(host);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), font: "11px system-ui, sans-serif", grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false } };
  const times = (plot, splits, axisIndex, space, step) =>
    splits.map((second) => (step >= 86400 ? fmt.day(second * 1000) : step >= 60 ? fmt.minute(second * 1000) : fmt.time(second * 1000)));
  return new globalThis.uPlot(
    {
      width: host.clientWidth, height: chart.height, legend: { show: false },
      cursor: { y: false, sync: { key: "time" }, drag: { x: false, y: false }, points: { show: false } },
      hooks: { setCursor: [(plot) => latest.current.onCursor(plot.cursor.left >= 0 ? plot.cursor.idx : null)] },
      scales: { x: { range: () => latest.current.range }, y: { range: chart.range } },
      axes: [
        { ...axis, values: times, space: 70, size: 24 },
        { ...axis, size: 68, space: 28, values: (plot, splits) => splits.map(chart.text) },
      ],
      series: [{}, ...chart.series.map(({ index, filled }) => {
        const line = colour(`--series-${index}`);
        return { stroke: line, width: filled ? 1 : 1.5, fill: filled ? mixed(line, colour("--surface"), 0.4) : undefined, points: { show: false } };
      })],
    },
    [[], ...chart.series.map(() => [])],
    host,
  );
}

function Legend({ data, shown, fixed, t, fmt, long }) {
  const moment = data.times[shown] * 1000;
  return html`
    <table class="legend">
      <caption>${fixed ? (long ? fmt.full(moment) : fmt.time(moment)) : t("charts.now")}</caption>
      <thead><tr><th scope="col">${t("charts.uplink")}</th><th scope="col">↓</th><th scope="col">↑</th>
        <th scope="col">${t("cards.rtt")}</th><th scope="col">${t("cards.loss")}</th></tr></thead>
      <tbody>${data.names.map((name, n) => html`<tr key=${name}>
        <th scope="row"><i class="swatch series-${n}" aria-hidden="true"></i>${name === hidden ? t("charts.others", { n: data.rest }) : fmt.text(name)}</th>
        <td>${fmt.bits(data.each[n].rx[shown])}</td><td>${fmt.bits(data.each[n].tx[shown])}</td>
        <td>${fmt.ms(data.each[n].rtt[shown])}</td><td>${fmt.percent(data.each[n].loss[shown])}</td></tr>`)}</tbody>
    </table>`;
}
