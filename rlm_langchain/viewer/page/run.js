// The run view: the turns of one run with their code, each fan-out as a grid at its line, and the tree of all runs.
import { el, put, $, fill, count, several, money, seconds, brief, figure } from "./text.js";
import { run, state, go, open, nameOfRun, totalOf, costOf, STATES, PROBLEMS } from "./model.js";
import { chip, grid, tally, tip, tipOfCall, fillOf, modelName, Rows } from "./widgets.js";

const FEW = 4;
const ROW = 30;
let runsShown = null;
let folded = new Set();

// --- All runs ---

/** The tree of runs, shown if there is more than one. */
export function showOutline() {
  const host = $("outline");
  host.hidden = run.runs.length < 2 || !["run", "time"].includes(state.view);
  if (host.hidden) return;
  if (!runsShown) {
    const list = el("div", { id: "runs" });
    fill(host, el("h2", several(run.runs.length, "run")), list);
    runsShown = new Rows(list, ROW, runRow, "Runs");
    runsShown.keys = {
      ArrowRight: (one) => { folded.delete(one.index); showOutline(); },
      ArrowLeft: (one) => { if (one.children.length) folded.add(one.index); showOutline(); },
    };
    if (run.runs.length > 400) folded = new Set(run.runs.filter((one) => one.depth > 0 && one.children.length).map((one) => one.index));
  }
  for (let one = run.runs[state.root]; one.up >= 0; one = run.runs[one.up]) folded.delete(one.up);
  const rows = run.runs.filter(inSight);
  const chosen = rows.findIndex((one) => one.index === state.root);
  $("runs").style.height = `${Math.min(rows.length * ROW, Math.max(240, innerHeight - 160))}px`;
  runsShown.set(rows, chosen);
  if (chosen >= 0) runsShown.show(chosen);
}

function inSight(one) {
  for (let above = one.up; above >= 0; above = run.runs[above].up) if (folded.has(above)) return false;
  return true;
}

function runRow(one) {
  const bad = one.answer && one.answer.status !== "complete";
  const fold = one.children.length ? el("button.fold", { type: "button", tabindex: "-1", "aria-label": folded.has(one.index) ? "Unfold" : "Fold", onclick: (event) => {
    event.stopPropagation();
    if (!folded.delete(one.index)) folded.add(one.index);
    showOutline();
  } }, folded.has(one.index) ? "▸" : "▾") : el("span.fold");
  const row = el("div.run", { onclick: () => go({ root: one.index, at: null, view: ["found", "costs", "context"].includes(state.view) ? "run" : state.view }) },
    fold, el(`i.dot.${one.answer ? (bad ? (one.answer.status === "failed" ? "bad" : "cut") : "ok") : "open"}`),
    el("span.name", one.path || "top"), el("span.what", brief(one.question?.query || "", 60)), el("span.sum", figure(totalOf(one)[4], money(totalOf(one)[4]))));
  row.style.paddingLeft = `${4 + Math.min(one.depth, 6) * 12}px`;
  return row;
}

// --- One run ---

export function crumbs(one) {
  const parts = [];
  for (let at = one; at; at = run.runs[at.up]) parts.unshift(at);
  return el("nav.crumbs", { "aria-label": "Path in the tree" }, parts.map((part) => [
    part.depth > 0 && el("span", "›"),
    part === one ? el("b", part.path || "top run") : el("button.link", { type: "button", onclick: () => go({ root: part.index, at: null }) }, part.path || "top run"),
  ]));
}

let watcher = null;

export function showRun() {
  const one = run.runs[state.root];
  const host = $("view");
  watcher?.disconnect();
  watcher = new IntersectionObserver(build, { rootMargin: "900px" });
  if (!one) return void fill(host, el("p.none", "There are no records."));
  const total = totalOf(one);
  fill(host,
    el("header.of-run", run.runs.length > 1 && crumbs(one),
      one.path && put(el("h2"), brief(one.question?.query || nameOfRun(one), 400)),
      one.path && one.answer && el("p.status", chip(one.answer.status, { complete: "ok", partial: "cut", failed: "bad" }[one.answer.status]), " ", brief(one.answer.answer ?? run.stops[one.answer.reason], 300)),
      one.path && el("p.aside", `${money(total[4])} · ${count(total[1] + total[3])} tokens · ${several(total[0], "model call")} · ${seconds(Math.max(0, one.end - one.start))}`)),
    el("ol.steps", one.steps.map((step, i) => stepOf(one, step, i))),
    one.answer ? null : el("p.none", "The records of this run end here, without an answer."));
}

function stepOf(one, step, number) {
  if (step.type === "turn") return turnOf(one, run.byId.get(`turn:${one.path}.${step.turn}`));
  const item = run.byId.get(`${step.type}:${one.path}.${number}`);
  const heads = { note: step.to === "model" ? "To the model" : "Note", question: "Next question", answer: `Answer · ${step.status}` };
  return el(`li.step.${step.type}`, { id: item.id, onclick: () => open(item) }, el("b", heads[step.type]), " ", brief(step.text ?? step.query ?? step.answer ?? "", 420),
    step.usage && el("span.aside", ` ${money(step.usage[4])}`));
}

function turnOf(one, item) {
  const it = item.it;
  const marks = [
    it.flaw && chip(it.flaw, "cut"), it.summary && chip("summary"), it.from_cache && chip("from cache", "memo"),
    it.repeats !== undefined && chip(`repeats turn ${it.repeats + 1}`, "bad"), it.retries && chip(several(it.retries, "retry", "retries")), it.lost && chip(`${count(it.lost)} lost`, "bad"),
    ...item.cells.map((cell) => PROBLEMS[cell.problem] && chip(PROBLEMS[cell.problem], "bad")),
  ];
  const calls = item.cells.flatMap((cell) => cell.calls);
  const below = calls.reduce((sum, call) => sum + (costOf(call) ?? 0), 0);
  const body = el("div.body");
  const lines = item.cells.reduce((sum, cell) => sum + cell.it.code.split("\n").length, 4);
  body.style.minHeight = `${Math.min(900, lines * 20 + calls.length)}px`;
  const card = el("li.turn", { id: item.id },
    el("header", el("span.no", { title: `Turn ${it.turn + 1}` }, it.turn + 1),
      el("h3", el("button.link", { type: "button", onclick: () => open(item) }, it.title)), marks,
      el("span.spent", `${modelName(item)} · ${seconds(it.seconds)} · ${money(it.usage[4])}`, calls.length > 0 && below > 0 && ` + ${money(below)}`)),
    body);
  body.item = item;
  body.run = one;
  watcher.observe(body);
  return card;
}

/** Renders the turns that scroll into view. */
function build(entries) {
  for (const { target, isIntersecting } of entries) if (isIntersecting) buildTurn(target);
}

function buildTurn(body) {
  if (body.firstChild || !body.item) return;
  watcher.unobserve(body);
  const item = body.item;
  fill(body,
    item.it.words ? words(item.it.words) : null,
    item.cells.map((cell) => cellOf(cell)),
    (item.it.unrun || []).map((code) => el("div.cell.unrun", el("p.aside", "Not run:"), codeOf(code, []))));
  body.style.minHeight = "";
  mark();
}

/** Renders all turns, for printing. */
export function buildAll() {
  for (const body of document.querySelectorAll(".turn > .body")) buildTurn(body);
}

function words(text) {
  const body = put(el("p.words"), text);
  if (text.length > 500) {
    body.classList.add("clamped");
    body.addEventListener("click", () => body.classList.toggle("clamped"));
  }
  return body;
}

function cellOf(item) {
  const it = item.it;
  const fans = fansOf(item);
  return el("div.cell", { id: item.id }, codeOf(it, fans), outputOf(item));
}

/** The calls of a cell, grouped by the lines that made them. Batches of one loop share a group. */
function fansOf(item) {
  const fans = new Map();
  let at = 0;
  for (const batch of item.it.batches) {
    const calls = item.calls.slice(at, at + batch.calls.length);
    at += batch.calls.length;
    const key = `${batch.lines.join(",")} ${batch.kind === "budget" || batch.kind === "history" ? batch.kind : ""}`;
    if (!fans.has(key)) fans.set(key, { lines: batch.lines, kind: batch.kind, calls: [], batches: 0 });
    fans.get(key).calls.push(...calls);
    fans.get(key).batches += 1;
  }
  return [...fans.values()];
}

/** Highlighted code by lines; each group of calls follows the first line that may have made it. */
function codeOf({ code, tokens }, fans) {
  const kinds = ["", "k", "s", "c", "n", "f"];
  const pieces = tokens.length ? tokens : [code.length, 0];
  const box = el("div.code", { role: "group", "aria-label": "Code" });
  let line = el("div.line");
  let number = 1;
  let at = 0;
  const end = () => {
    const made = fans.filter((fan) => (fan.lines[0] || Infinity) === number);
    line.dataset.n = number;
    if (made.length) line.classList.add("asks");
    box.append(line, ...made.map(fanOf));
    line = el("div.line");
    number += 1;
  };
  for (let i = 0; i < pieces.length; i += 2) {
    const parts = code.slice(at, at + pieces[i]).split("\n");
    at += pieces[i];
    parts.forEach((part, j) => {
      if (j) end();
      if (part) line.append(put(el(pieces[i + 1] ? `span.${kinds[pieces[i + 1]]}` : "span"), part));
    });
  }
  if (line.firstChild || number === 1) end();
  box.append(...fans.filter((fan) => !(fan.lines[0] < number)).map(fanOf));
  return box;
}

const NAMES = { llm: "model call", rlm: "child run", tool: "tool call", search: "search", budget: "budget query", history: "history query", function: "function call" };

function fanOf(fan) {
  const { calls, lines, batches } = fan;
  const name = NAMES[fan.kind] || `${fan.kind} call`;
  const cost = calls.reduce((sum, call) => sum + (costOf(call) ?? 0), 0);
  const known = calls.filter((call) => call.end !== undefined);
  const took = known.length ? Math.max(...known.map((call) => call.end)) - Math.min(...known.map((call) => call.start)) : 0;
  const plural = name === "search" ? "searches" : name.startsWith("look") ? name.replace("look", "looks") : undefined;
  const head = [several(calls.length, name, plural), batches > 1 && `in ${count(batches)} batches`, cost > 0 && money(cost), took > 0.001 && seconds(took),
    lines.length > 1 && `made at line ${lines.slice(0, -1).join(", ")} or ${lines.at(-1)}`, lines.length === 0 && "line unknown"].filter(Boolean).join(" · ");
  const free = fan.kind === "budget" || fan.kind === "history";
  return el("div.fan", el("p.head", el("span", head), !free && tally(calls).map(([of, number]) => el(`button.tally.${fillOf({ state: of })}`, { type: "button", title: `Next call: ${STATES[of][0]}`, onclick: () => next(calls, of) }, `${count(number)} ${STATES[of][0]}`))),
    !free && (calls.length <= FEW ? el("div.few", calls.map(oneCall)) : grid(calls, head)));
}

function next(calls, of) {
  const those = calls.filter((call) => call.state === of);
  open(those[(those.findIndex((call) => call.id === state.at) + 1) % those.length]);
}

function oneCall(item) {
  const it = item.it;
  return el("button.call", { type: "button", id: item.id, onclick: () => open(item), ondblclick: () => it.run !== undefined && go({ root: it.run, at: null }),
    onpointermove: (event) => tip(event, tipOfCall(item)), onpointerleave: () => tip() },
  el(`i.dot.${fillOf(item)}`), put(el("span.prompt"), brief(it.prompt || run.runs[it.run]?.question?.query || "", 140)), el("span.arrow", it.run === undefined ? "→" : "⇒"),
  put(el(`span.reply${it.error ? ".bad" : ""}`), brief(it.error || it.reply || STATES[it.state][0], 140)));
}

function outputOf(item) {
  const output = item.it.output;
  if (!output) return el("p.none", "This block has not finished.");
  const fence = /^(`{3,})\n([^]*?)\n\1$/m.exec(output.text);
  const shown = fence ? fence[2] : output.text.replace(/^Output[^\n]*:\s*/, "");
  const rest = fence ? output.text.slice(fence.index + fence[0].length).trim() : "";
  const long = shown.split("\n").length > 16 || shown.length > 1600;
  const pre = put(el(`pre.out${output.error ? ".bad" : ""}${long ? ".tall" : ""}`, { tabindex: "0", "aria-label": "Output" }), shown);
  const kept = fence && output.chars > fence[2].length + 200 ? `The model was shown ${count(fence[2].length)} of ${several(output.chars, "character")}.` : "";
  const quiet = !fence && output.outcome === "answered";
  return el("div.output", !quiet && pre, (rest || kept) && el("p.aside", brief(rest, 600), rest && kept && " ", kept),
    output.outcome === "answered" && el("p.final", chip("answer", "ok"), " ", brief(output.value ?? "", 300)),
    output.misfit && el("p.warn", `The answer was sent back: ${brief(output.misfit, 400)}`));
}

/** Highlights the selected item, and scrolls it into view. */
export function mark(scroll = false) {
  for (const old of document.querySelectorAll(".chosen")) old.classList.remove("chosen");
  const item = run.byId.get(state.at);
  if (!item || state.view !== "run") return;
  let element = document.getElementById(item.id);
  if (!element && item.turn) {
    const body = document.getElementById(item.turn.id)?.querySelector(".body");
    if (body) buildTurn(body);
    element = document.getElementById(item.id) || document.getElementById(item.cell?.id || item.turn.id);
  }
  element?.classList.add("chosen");
  for (const canvas of document.querySelectorAll("canvas.grid")) canvas.redraw();
  if (!scroll || !element) return;
  const box = element.getBoundingClientRect();
  if (box.bottom < 80 || box.top > innerHeight - 60) element.scrollIntoView({ block: box.height > innerHeight ? "start" : "center" });
}
