// Words and numbers in the reader's language. What the daemon says, such as the reason of a state, stays English.
export const LANGUAGES = { en: "English", pl: "Polski", zh: "简体中文" };

const NOTHING = "–";
const PUBLIC_V4 = /(?<![\w.:])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])/g;
const PUBLIC_V6 = /(?<![\w:.])(?:[0-9a-f]{1,4}:){1,7}(?::?[0-9a-f]{0,4}){1,7}(?:::)?(?![\w:])/gi;
const AT_HOME = /^(10\.|127\.|169\.254\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|0\.|255\.)/;
const AT_HOME_V6 = /^(fe[89ab][0-9a-f]:|f[cd][0-9a-f]{2}:|::1?$)/i;

export function preferred(stored) {
  const wanted = [stored, ...(navigator.languages || [])];
  return wanted.map((tag) => (tag || "").toLowerCase().split("-")[0]).find((tag) => tag in LANGUAGES) || "en";
}

export async function loadCatalogue(language) {
  const address = new URL(`./lang/${language}.json`, import.meta.url);
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${answer.status} ${address}`);
  return answer.json();
}

// `t(key, values)` fills {name} in a sentence; where the sentence has forms, `n` chooses one.
// `t.rich` does it with elements for values, and returns a list.
export function translator(language, catalogue) {
  const plural = new Intl.PluralRules(language);
  const find = (key, values) => {
    const found = catalogue[key];
    if (found === undefined) return key;
    return typeof found === "string" ? found : found[plural.select(Number(values.n))] ?? found.other;
  };
  const t = (key, values = {}) =>
    find(key, values).replace(/\{(\w+)\}/g, (hole, name) => (name in values ? String(values[name]) : hole));
  t.rich = (key, values = {}) =>
    find(key, values).split(/\{(\w+)\}/).map((part, at) => (at % 2 ? values[part] : part));
  t.has = (key) => key in catalogue;
  return t;
}

// Replaces addresses that are not of a private network; for screenshots.
export function hideAddresses(text) {
  return text
    .replace(PUBLIC_V4, (found) => (AT_HOME.test(found) ? found : "•.•.•.•"))
    .replace(PUBLIC_V6, (found) => (/::|(:.*){7}/.test(found) && !AT_HOME_V6.test(found) ? "•:•:•" : found));
}

export function formats(language, t, store) {
  const digits = (value, most) => new Intl.NumberFormat(language, { maximumSignificantDigits: most }).format(value);
  const plain = new Intl.NumberFormat(language);
  const scaled = (value, units) => {
    let at = 0;
    while (Math.abs(value) >= 999.5 && at < units.length - 1) {
      value /= 1000;
      at += 1;
    }
    return `${digits(at ? value : Math.round(value), 3)} ${units[at]}`;
  };
  const known = (format) => (value) => (value === null || value === undefined ? NOTHING : format(value));
  const date = (options) => {
    const format = new Intl.DateTimeFormat(language, options);
    return known((moment) => format.format(new Date(moment)));
  };
  const clock = date({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const dayAndClock = date({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const span = known((seconds) => {
    const whole = Math.max(0, Math.round(seconds));
    const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"], [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
    const first = parts.findIndex(([n]) => n > 0);
    const shown = first < 0 ? [[0, "s"]] : parts.slice(first, first + 2).filter(([n]) => n > 0);
    return shown.map(([n, unit]) => t(`unit.${unit}`, { n })).join(" ");
  });
  return {
    bits: known((value) => scaled(value, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])),
    bytes: known((value) => scaled(value, ["B", "kB", "MB", "GB", "TB", "PB"])),
    number: known((value) => plain.format(value)),
    // Never "0 %" of something that is there, nor "100 %" of something that is not whole; `most` digits if given.
    percent: (part, most) => known((whole) => {
      const value = 100 * whole;
      const digitsShown = most || (value < 1 ? 1 : value > 99 ? 3 : 2);
      const highest = 100 - 10 ** (2 - Math.max(3, digitsShown));
      if (value > 0 && value < 0.1) return `< ${digits(0.1, 1)} %`;
      if (value < 100 && value > highest) return `> ${digits(highest, 6)} %`;
      return `${digits(value, digitsShown)} %`;
    })(part),
    ms: known((value) => `${digits(value, value < 10 ? 2 : value < 1000 ? 3 : 4)} ms`),
    span,
    ago: known((moment) => t("time.ago", { span: span(Math.max(0, (Date.now() - new Date(moment)) / 1000)) })),
    // The clock of today, with the day for any other; `full` is for titles.
    time: known((moment) =>
      new Date(moment).toDateString() === new Date().toDateString() ? clock(moment) : dayAndClock(moment)),
    full: date({ dateStyle: "full", timeStyle: "long" }),
    day: date({ day: "numeric", month: "short" }),
    minute: date({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
    // What came from outside: without public addresses while the privacy switch is on.
    text: known((value) => (store.state.private ? hideAddresses(String(value)) : String(value))),
  };
}
