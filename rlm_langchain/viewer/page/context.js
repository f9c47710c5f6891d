// The context view: which parts models read, in which calls, and what code printed for the root model.
import { el, put, $, fill, count, several, bytes, percent, brief, visible } from "./text.js";
import { run, go, open, nameOfRun, placeOf, titleOf } from "./model.js";
import { paint, sized, tip, chipOfState } from "./widgets.js";
import { itemAt, placeIn, partOf } from "./detail.js";

const TRACK = 26;
const SHOWN = 30;

/** The byte ranges of a context that were read (start, end), and the items that read them. */
function readings(number) {
  const found = [];
  for (const item of run.items) {
    if (item.kind !== "call" && item.kind !== "answer") continue;
    for (const [of, first, end] of item.it.read || []) if (of === number) found.push({ first, end, item });
  }
  return found;
}

export function showContext() {
  const host = $("view");
  if (!run.contexts.length) return void fill(host, el("p.none", "This run had no context."));
  fill(host, el("p.legend", el("span", el("i.dot.ok"), "read by models in sub-calls"), el("span", el("i.dot.turn"), "read by a root model: printed by code, or in the prompt"), el("span", el("i.dot.bad"), "quoted in the answer")),
    run.contexts.map((context, number) => oneContext(context, number)),
    el("p.aside", "Coverage is found by matching text of at least 32 bytes. Text that only code read, or that was changed before it was sent, is not counted."));
}

function oneContext(context, number) {
  const read = readings(number);
  const own = read.filter(({ item }) => item.kind === "answer");
  const calls = read.filter(({ item }) => item.kind === "call");
  const quoted = number === 0 || run.contexts.length === 1 ? run.citations.filter((one) => one.byte !== undefined).map((one) => {
    const start = (context.items?.find(([label]) => label === one.source)?.[1] ?? 0) + one.byte;
    return { first: start, end: start + new TextEncoder().encode(one.quote).length };
  }) : [];
  const joined = merged(read);
  const holes = gaps(joined, context.size);
  const seen = joined.reduce((sum, [first, end]) => sum + end - first, 0);
  const canvas = el("canvas", { tabindex: "0", role: "img", "aria-label": `Map of context ${number + 1}: ${percent(seen / Math.max(1, context.size))} was read. Left and Right move, Enter shows which calls read this part.` });
  const below = el("div.readers");
  const box = el("section.context", el("h2", run.contexts.length > 1 ? `Context ${number + 1}` : "Context"), put(el("p.aside"), brief(context.about, 400)), el("p", el("b", percent(seen / Math.max(1, context.size))), ` of ${bytes(context.size)} was read by a model`,
    joined.length ? `, in ${several(joined.length, "part")}` : "", ` by ${several(new Set(calls.map(({ item }) => item.id)).size, "sub-call")}`), el("div.map", canvas), below, unread(holes, context, number));
  let cursor = -1;
  const draw = () => {
    const width = canvas.parentElement.clientWidth;
    if (!width) return;
    const pen = sized(canvas, width, 3 * TRACK + 18);
    [[calls, "ok", 0], [own, "turn", 1], [quoted, "bad", 2]].forEach(([ranges, colour, row]) => track(pen, ranges, context.size, width, row * TRACK, colour));
    pen.fillStyle = paint("soft");
    pen.font = "11px system-ui, sans-serif";
    pen.fillText("0", 0, 3 * TRACK + 13);
    const last = bytes(context.size);
    pen.fillText(last, width - pen.measureText(last).width, 3 * TRACK + 13);
    if (cursor >= 0) { pen.fillStyle = paint("ink"); pen.fillRect(cursor / context.size * width, 0, 1.5, 3 * TRACK); }
  };
  const show = (byte) => {
    cursor = byte;
    draw();
    fill(below, readersOf(read, byte, number, context));
  };
  const byteAt = (event) => Math.min(context.size - 1, Math.max(0, Math.round(event.offsetX / canvas.clientWidth * context.size)));
  canvas.addEventListener("click", (event) => show(byteAt(event)));
  canvas.addEventListener("pointermove", (event) => {
    const byte = byteAt(event);
    const there = read.filter(({ first, end }) => first <= byte && byte < end);
    tip(event, [itemAt(number, byte) ? visible(itemAt(number, byte)[0]) : `byte ${count(byte)}`, there.length ? `read ${several(there.length, "time")}` : "not read by a model"]);
  });
  canvas.addEventListener("pointerleave", () => tip());
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 0.01, ArrowLeft: -0.01 }[event.key];
    if (step) { event.preventDefault(); cursor = Math.min(context.size - 1, Math.max(0, Math.round(Math.max(0, cursor) + step * context.size))); draw(); }
    else if (event.key === "Enter") show(Math.max(0, cursor));
  });
  canvas.redrawMap = draw;
  new ResizeObserver(draw).observe(box);
  requestAnimationFrame(draw);
  return box;
}

/** Draws how often the part at each pixel was read; stronger colours mean more often. */
function track(pen, ranges, size, width, y, colour) {
  pen.fillStyle = paint("sunken");
  pen.fillRect(0, y, width, TRACK - 6);
  const change = new Float64Array(Math.ceil(width) + 2);
  for (const { first, end } of ranges) {
    change[Math.floor(first / size * width)] += 1;
    change[Math.max(Math.floor(first / size * width) + 1, Math.ceil(end / size * width))] -= 1;
  }
  let depth = 0;
  const depths = Array.from(change, (by) => (depth += by));
  const most = Math.max(1, ...depths);
  pen.fillStyle = paint(colour);
  depths.forEach((times, x) => {
    if (times <= 0 || x >= width) return;
    pen.globalAlpha = 0.45 + 0.55 * (times / most);
    pen.fillRect(x, y, 1, TRACK - 6);
  });
  pen.globalAlpha = 1;
}

function merged(ranges) {
  const joined = [];
  for (const { first, end } of [...ranges].sort((a, b) => a.first - b.first)) {
    const last = joined.at(-1);
    if (last && first <= last[1]) last[1] = Math.max(last[1], end); else joined.push([first, end]);
  }
  return joined;
}

function gaps(joined, size) {
  const found = [];
  let until = 0;
  for (const [first, end] of [...joined, [size, size]]) {
    if (first > until) found.push([until, first]);
    until = Math.max(until, end);
  }
  return found.sort((a, b) => b[1] - b[0] - (a[1] - a[0]));
}

function unread(holes, context, number) {
  if (!holes.length) return el("p.fine", "Models read all of it.");
  const total = holes.reduce((sum, [first, end]) => sum + end - first, 0);
  return el("details.unread", { open: holes.length <= 8 }, el("summary", `Never read by a model: ${bytes(total)} in ${several(holes.length, "part")}`), el("ul.parts", holes.slice(0, 12).map(([first, end]) => {
    const text = partOf(number, first, Math.min(end, first + 240));
    return el("li", el("b", bytes(end - first)), " ", placeIn(number, first, end), text !== null && put(el("pre.text.small"), brief(text, 220)));
  })), holes.length > 12 && el("p.aside", `and ${several(holes.length - 12, "smaller part")}`));
}

function readersOf(read, byte, number, context) {
  const there = read.filter(({ first, end }) => first <= byte && byte < end);
  const text = partOf(number, Math.max(0, byte - 200), Math.min(context.size, byte + 400));
  return [
    el("h3", there.length ? `At byte ${count(byte)}: read ${several(there.length, "time")}` : `At byte ${count(byte)}: not read by a model`),
    text !== null ? put(el("pre.text"), text) : el("p.aside", "The page does not contain the text of this context."),
    el("ul.plain", there.slice(0, SHOWN).map(({ item, first, end }) => el("li", el("button.link", { type: "button", onclick: () => open(item) }, item.kind === "call" ? `Call ${placeOf(item)}` : `The root model of ${nameOfRun(run.runs[item.run])}`), " ",
      item.kind === "call" && chipOfState(item.state), " ", put(el("span.aside"), item.kind === "call" ? brief(titleOf(item), 90) : ""), el("span.aside", ` bytes ${count(first)} to ${count(end)}`)))),
    there.length > SHOWN && el("p.aside", `and ${several(there.length - SHOWN, "more")}`),
  ].filter(Boolean);
}
