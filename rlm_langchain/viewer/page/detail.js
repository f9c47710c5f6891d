// The side panel: all recorded details of one call, turn, code block or note.
import { el, put, $, fill, count, several, money, seconds, when, visible } from "./text.js";
import { run, state, go, open, placeOf, nameOfRun, WORDS, STATES, PROBLEMS } from "./model.js";
import { chip, chipOfState, modelName } from "./widgets.js";

const EXCERPT = 1500;

export function showDetail() {
  const panel = $("detail");
  const item = run.byId.get(state.at);
  document.body.classList.toggle("open", Boolean(item));
  panel.hidden = !item;
  if (!item) return;
  fill(panel, head(item), ...(PARTS[item.kind] || note)(item));
  panel.scrollTop = 0;
}

function head(item) {
  const number = item.kind === "call" ? ` ${item.path}` : item.kind === "turn" ? ` ${item.it.turn + 1}` : item.kind === "cell" ? ` ${item.it.cell + 1}` : "";
  const kind = item.kind === "call" && item.it.kind && item.it.kind !== "llm" && item.it.kind !== "rlm" ? ` of ${item.it.kind}` : "";
  return el("header",
    el("h2", `${WORDS[item.kind]}${number}${kind}`, " ", item.kind === "call" ? chipOfState(item.state) : PROBLEMS[item.problem] && chip(PROBLEMS[item.problem], "bad")),
    el("div.tools",
      el("button.quiet", { type: "button", title: "Previous (k)", "aria-label": "Previous", onclick: () => beside(-1) }, "‹"),
      el("button.quiet", { type: "button", title: "Next (j)", "aria-label": "Next", onclick: () => beside(1) }, "›"),
      el("button.quiet", { type: "button", title: "Close (Esc)", "aria-label": "Close", onclick: () => go({ at: null }) }, "✕")),
    el("p.where", item.turn ? `turn ${item.turn.it.turn + 1} of ` : "in ", nameOfRun(run.runs[item.run])));
}

/** Shows the previous or next item of the same kind. */
export function beside(step) {
  const item = run.byId.get(state.at);
  if (!item) return;
  for (let i = item.index + step; i >= 0 && i < run.items.length; i += step) {
    if (run.items[i].kind === item.kind) return void open(run.items[i]);
  }
}

function facts(pairs) {
  return el("dl.facts", pairs.filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false)
    .map(([name, value]) => el("div", el("dt", name), el("dd", value))));
}

function usageFacts(usage) {
  if (!usage) return [];
  const [calls, input, cached, output, cost, estimated] = usage;
  return [
    ["cost", `${money(cost)}${estimated ? " (estimated)" : ""}`],
    ["input tokens", `${count(input)}${cached ? `, ${count(cached)} of them cached` : ""}`],
    ["output tokens", count(output)],
    calls > 1 && ["model calls", count(calls)],
  ].filter(Boolean);
}

function sendFacts(it) {
  return [["retries", it.retries && count(it.retries)], ["replies lost", it.lost && count(it.lost)],
    ["cache", it.from_cache && "the reply came from LangChain's cache"]];
}

export function block(title, text, kind = "") {
  const body = put(el(`pre.text${kind ? `.${kind}` : ""}`, { tabindex: "0" }), text);
  const copy = el("button.quiet", { type: "button", onclick: () => navigator.clipboard?.writeText(text).then(() => { copy.textContent = "Copied"; }, () => {}) }, "Copy");
  return el("section", el("h3", title, copy), body);
}

function call(item) {
  const it = item.it;
  const child = it.run === undefined ? null : run.runs[it.run];
  const prompt = child?.question ? child.question.query : it.prompt;
  const missing = it.chars > (prompt || "").length;
  return [
    child && el("p", el("button", { type: "button", onclick: () => go({ root: child.index, at: null, view: state.view === "found" ? "run" : state.view }) }, `Open ${nameOfRun(child)} →`)),
    it.refused && el("p.warn", it.state === "declined" ? "A person declined this call." : `Refused: ${run.stops[it.refused] || it.refused}.`),
    it.error && block("Error", it.error, "bad"),
    prompt && block("Prompt", prompt),
    !child && missing && prompt && el("p.aside", it.kept ? `Cut: the page contains the first ${count(prompt.length)} of ${count(it.chars)} characters.` : `Only the first ${count(prompt.length)} of ${count(it.chars)} characters were recorded.`),
    it.reply !== undefined && block(it.state === "cut" ? "Reply, cut off" : "Reply", it.reply),
    it.reply_of && el("p.aside", `Cut: the page contains the first ${count(it.reply.length)} of ${count(it.reply_of)} characters.`),
    it.reply_chars && el("p.aside", `Shortened; the full reply has ${count(it.reply_chars)} characters.`),
    it.read && readParts(it.read),
    facts([["model", modelName(item)], ...usageFacts(it.usage), ["took", it.seconds !== undefined && seconds(it.seconds)], ["ended", it.time && when(it.time)],
      ["prompt", it.chars && several(it.chars, "character")], ["pictures", (it.images || []).join(", ")], ["fingerprint", it.sha], ["memo", it.memo && "an identical call was answered before; this one cost nothing"], ...sendFacts(it)]),
  ];
}

/** The parts of the context in a prompt, with their text if the page contains it. */
function readParts(read) {
  return el("section", el("h3", "Parts of the context in this prompt"), el("ul.parts", read.slice(0, 40).map(([number, first, end]) => {
    const text = partOf(number, first, Math.min(end, first + EXCERPT));
    return el("li",
      el("button.link", { type: "button", onclick: () => go({ view: "context", at: null }) }, placeIn(number, first, end)),
      text !== null && put(el("pre.text.small"), text + (end > first + EXCERPT ? " …" : "")));
  })), read.length > 40 && el("p.aside", `and ${several(read.length - 40, "more part")}`));
}

/** The name of a byte range of a context. */
export function placeIn(number, first, end) {
  const item = itemAt(number, first);
  const name = run.contexts.length > 1 ? `context ${number + 1}: ` : "";
  return item ? `${name}${visible(item[0])}, bytes ${count(first - item[1])} to ${count(end - item[1])}` : `${name}bytes ${count(first)} to ${count(end)}`;
}

/** The item of a list or dict that contains a byte: its label and first byte. */
export function itemAt(number, byte) {
  const items = run.contexts[number]?.items;
  if (!items?.length) return null;
  let [low, high] = [0, items.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (items[middle][1] <= byte) low = middle; else high = middle - 1;
  }
  return items[low];
}

/** The text of a byte range of a context, or null if the page does not contain it. */
export function partOf(number, first, end) {
  const context = run.contexts[number];
  if (context?.text === undefined) return null;
  context.bytes ??= new TextEncoder().encode(context.text);
  return new TextDecoder().decode(context.bytes.slice(first, end)).replace(/^\ufffd+|\ufffd+$/g, "");
}

function turn(item) {
  const it = item.it;
  return [
    it.summary && el("p.warn", "This reply is a summary of the history so far. It replaces the history in later prompts."),
    it.repeats !== undefined && el("p.warn", `The same code as in turn ${it.repeats + 1}.`),
    block("Full reply", it.text || "(an empty reply)"),
    facts([["model", modelName(item)], ...usageFacts(it.usage), ["took", seconds(it.seconds)], ["ended", when(it.time)], ["flaw", it.flaw], ...sendFacts(it)]),
  ];
}

function cell(item) {
  const output = item.it.output;
  return [
    output?.misfit && el("p.warn", `The answer was sent back: ${output.misfit}`),
    output ? block(output.outcome === "died" ? "The process died" : output.error ? "Output, with an error" : "Output, as the model read it", output.text, output.error ? "bad" : "")
      : el("p.warn", "This block has not finished."),
    output?.value !== undefined && block("Answer given", output.value),
    block("Code", item.it.code),
    facts([["calls", item.calls.length && count(item.calls.length)], ["printed", output && several(output.chars, "character")], ["computed", output && seconds(output.seconds)], ["began", when(item.it.time)]]),
  ];
}

function note(item) {
  const it = item.it;
  if (item.kind === "answer") return [block("Answer", it.answer ?? "(none)"), facts([["status", it.status], ["why", run.stops[it.reason]], ["missing", (it.missing || []).join(", ")], ["ended", when(it.time)]])];
  if (item.kind === "question") return [block("Question", it.query), it.text !== it.query && block("As the model read it", it.text), facts([["context", it.context?.about], ["sandbox", it.sandbox], ["strategies", (it.strategies || []).join(", ")], ["asked", when(it.time)]])];
  return [block(it.to === "model" ? "Note to the model" : "Note to the reader", it.text), facts([...usageFacts(it.usage), ["replies lost", it.lost && count(it.lost)], ["written", when(it.time)]])];
}

const PARTS = { call, turn, cell, note, answer: note, question: note };
