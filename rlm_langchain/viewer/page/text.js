// Elements and texts. All data of a run passes through `el` or `put` as text; none of it is parsed as HTML.

const INVISIBLE = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u3164\\uffa0" +
    "\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufe00-\\ufe0d\\ufff0-\\ufffb\\u{1bca0}-\\u{1bca3}" +
    "\\u{1d173}-\\u{1d17a}\\ud800-\\udfff\\u{e0000}-\\u{e0fff}]", "gu");

/** The Python escape of an invisible character: \x1b, \u202e, \U000e0041. */
function escaped(character) {
  const code = character.codePointAt(0);
  if (code === 13) return "\\r";
  const [mark, width] = code < 256 ? ["\\x", 2] : code < 65536 ? ["\\u", 4] : ["\\U", 8];
  return mark + code.toString(16).padStart(width, "0");
}

/** A text with invisible characters escaped, as in `context/sanitize.py`. */
export function visible(text) {
  return String(text).replace(INVISIBLE, escaped);
}

/** Puts a text into an element, and marks the escapes of invisible characters. */
export function put(element, text) {
  const whole = String(text);
  let at = 0;
  for (const found of whole.matchAll(INVISIBLE)) {
    element.append(whole.slice(at, found.index), el("span.esc", escaped(found[0])));
    at = found.index + found[0].length;
  }
  element.append(whole.slice(at));
  return element;
}

/** Makes an element: `el("button.quiet", {onclick}, "text", other)`. Texts become text nodes. */
export function el(what, ...rest) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const one of rest.flat(3)) {
    if (one === null || one === undefined || one === false || one === "") continue;
    if (one instanceof Node) element.append(one);
    else if (typeof one === "object") attributes(element, one);
    else put(element, one);
  }
  return element;
}

function attributes(element, given) {
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
}

export const $ = (id) => document.getElementById(id);

export function fill(element, ...children) {
  element.replaceChildren(...children.flat(3).filter((one) => one !== null && one !== undefined && one !== false));
  return element;
}

// --- Numbers ---

const WHOLE = new Intl.NumberFormat("en-US");

export const count = (number) => WHOLE.format(number);
export const several = (number, one, more) => `${count(number)} ${number === 1 ? one : more || `${one}s`}`;

/** Dollars with three significant digits; null means that the price is unknown. */
export function money(dollars) {
  if (dollars === null || dollars === undefined) return "price unknown";
  if (dollars === 0) return "$0";
  const places = dollars >= 100 ? 2 : Math.min(8, Math.max(2, 2 - Math.floor(Math.log10(Math.abs(dollars)))));
  const [whole, rest] = dollars.toFixed(places).split(".");
  return `$${count(Number(whole))}.${rest.replace(/0+$/, "").padEnd(2, "0")}`;
}

export function seconds(number) {
  if (number < 0.0095) return `${Math.round(number * 1000)} ms`;
  if (number < 9.95) return `${number.toFixed(number < 0.995 ? 2 : 1)} s`;
  if (number < 119.5) return `${Math.round(number)} s`;
  if (number < 7200) return `${Math.floor(number / 60)} min ${Math.round(number % 60)} s`;
  if (number < 172800) return `${Math.floor(number / 3600)} h ${Math.round((number % 3600) / 60)} min`;
  return `${(number / 86400).toFixed(1)} days`;
}

export function bytes(number) {
  if (number < 1000) return `${number} B`;
  if (number < 999_500) return `${(number / 1000).toPrecision(3)} kB`;
  return number < 999_500_000 ? `${(number / 1e6).toPrecision(3)} MB` : `${(number / 1e9).toPrecision(3)} GB`;
}

/** A formatted number that also holds its exact value. */
export const figure = (value, text) => el("data", { value: String(value) }, text);

/** A share in percent. Shows 0% only for 0, and 100% only for 1. */
export function percent(share) {
  if (share <= 0) return "0%";
  if (share >= 1) return "100%";
  const shown = share * 100;
  return shown < 0.1 ? "under 0.1%" : shown > 99.9 ? "over 99.9%" : `${shown.toPrecision(shown < 9.95 ? 2 : 3).replace(/\.0$/, "")}%`;
}

export const brief = (text, most = 160) => {
  const line = String(text).slice(0, 4 * most).replace(/\s+/g, " ").trim();
  return line.length <= most ? line : `${line.slice(0, most - 1)}…`;
};

export const when = (time) => new Date(time * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
