// What charts draw: measurements from disk and the samples since, on one row of times.
const MOST = 7; // series that are drawn for themselves; the rest is one

export const hidden = Symbol("others");
const KINDS = { rx: "rx_bps", tx: "tx_bps", rtt: "rtt_ms", loss: "loss" };

// Returns {times, names, rest, each: [{rx, tx, rtt, loss}], throughput, rtt, loss}: rows in the order of the charts' series.
export function seriesOf(names, answer, samples, now, seconds) {
  const step = Math.max(1, answer.step_s);
  const first = Math.floor((now - seconds) / step) * step;
  const count = Math.floor((now - first) / step) + 1;
  const times = Array.from({ length: count }, (_, n) => first + n * step);
  const place = (time) => Math.floor((time - first) / step);
  const each = new Map(names.map((name) => [name, read(answer, name, count, place)]));
  if (step <= 60) addSamples(each, samples, count, place);
  const { shown, rest } = chosen(names, each);
  const rows = shown.map((name) => each.get(name));
  if (rest.length) rows.push(together(rest.map((name) => each.get(name)), count));
  return {
    times, names: rest.length ? [...shown, hidden] : shown, rest: rest.length, each: rows,
    throughput: [...stacked(rows, "rx", 1), ...stacked(rows, "tx", -1)],
    rtt: rows.map((row) => row.rtt), loss: rows.map((row) => row.loss),
  };
}

const empty = (count) => Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, new Array(count).fill(null)]));

function read(answer, name, count, place) {
  const rows = empty(count);
  const found = answer.series.find((series) => series.uplink === name);
  if (!found) return rows;
  const columns = Object.entries(KINDS).map(([kind, column]) => [kind, found.columns.indexOf(column)]);
  const time = found.columns.indexOf("time");
  for (const point of found.points) {
    const at = place(point[time]);
    if (at >= 0 && at < count) for (const [kind, column] of columns) rows[kind][at] = point[column] ?? null;
  }
  return rows;
}

// The last samples are newer than what was asked for; several of one interval are its mean.
function addSamples(each, samples, count, place) {
  let at = null;
  let sums = null;
  for (const sample of samples) {
    const next = place(sample.at / 1000);
    if (next < 0 || next >= count) continue;
    if (next !== at) {
      at = next;
      sums = new Map();
    }
    for (const [name, rows] of each) {
      const found = sample.uplinks[name];
      if (!found) continue;
      for (const [kind, column] of Object.entries(KINDS)) {
        if (found[column] === null || found[column] === undefined) continue;
        const sum = sums.get(name + kind) || { total: 0, n: 0 };
        sums.set(name + kind, sum);
        sum.total += found[column];
        sum.n += 1;
        rows[kind][at] = sum.total / sum.n;
      }
    }
  }
}

function chosen(names, each) {
  if (names.length <= MOST + 1) return { shown: names, rest: [] };
  const volume = (name) => each.get(name).rx.reduce((sum, rate) => sum + (rate || 0), 0);
  const order = names.map((name) => [volume(name), name]).sort((a, b) => b[0] - a[0]).map(([, name]) => name);
  const shown = names.filter((name) => order.indexOf(name) < MOST);
  return { shown, rest: names.filter((name) => !shown.includes(name)) };
}

// Rates of many uplinks add up; of their round trips and losses the worst counts.
function together(many, count) {
  const rows = empty(count);
  for (const one of many) {
    for (const kind of Object.keys(KINDS)) {
      one[kind].forEach((value, n) => {
        if (value === null) return;
        const before = rows[kind][n];
        rows[kind][n] = kind === "rx" || kind === "tx" ? (before || 0) + value : Math.max(before ?? value, value);
      });
    }
  }
  return rows;
}

// Sums of the first series, the first two …, the highest first: each is drawn over those before.
function stacked(rows, kind, sign) {
  const sums = [];
  let below = null;
  for (const row of rows) {
    const under = below;
    below = row[kind].map((value, n) => {
      const base = under ? under[n] : null;
      return value === null && base === null ? null : (base || 0) + sign * (value || 0);
    });
    sums.push(below);
  }
  return sums.reverse();
}

// The three charts: their series in the order of `seriesOf`, and their scales.
export function lines(names, host, fmt) {
  const order = names.map((_, index) => index);
  const back = [...order].reverse();
  const round = (value, least) => Math.max(least, value || 0) * 1.08;
  return [
    { height: 220, series: [...back, ...back].map((index) => ({ index, filled: true })),
      range: (plot, low, high) => [-round(-low, 1e5 / 3), round(high, 1e5)], text: (value) => fmt.bits(Math.abs(value)) },
    { height: 130, series: order.map((index) => ({ index })), range: (plot, low, high) => [0, round(high, 10)], text: fmt.ms },
    { height: 110, series: order.map((index) => ({ index })), range: (plot, low, high) => [0, Math.min(1.04, round(high, 0.05))], text: (value) => fmt.percent(value) },
  ];
}

// A colour between two, both "#rrggbb", that hides what is under it.
export function mixed(one, other, part) {
  const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const [a, b] = [parts(one), parts(other)];
  return `rgb(${a.map((value, n) => Math.round(value * part + b[n] * (1 - part))).join(",")})`;
}
