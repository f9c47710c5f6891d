// The run, and the state of the page: view, selection, search.

/** States of calls: their labels, and whether each is a problem. */
export const STATES = {
  ok: ["answered", false],
  memo: ["reused", false],
  cached: ["from the cache", false],
  open: ["not answered yet", false],
  partial: ["child run ended early", true],
  cut: ["cut off", true],
  empty: ["empty", true],
  filtered: ["filtered", true],
  refused: ["refused", true],
  declined: ["declined", true],
  failed: ["failed", true],
};

export const run = { runs: [], items: [], byId: new Map(), problems: [], models: [], contexts: [], citations: [], limits: {}, stops: {} };
export const state = { view: "run", root: 0, at: null, query: "", measure: "time" };
const followers = [];

/** Registers a function that is called after each change, with the names of the changed fields. */
export const follow = (listener) => followers.push(listener);

/** Changes the state of the page, and writes it to the URL. */
export function go(change, { replace = false } = {}) {
  const before = { ...state };
  Object.assign(state, change);
  const changed = new Set(Object.keys(state).filter((name) => state[name] !== before[name]));
  if (changed.size) writeAddress(replace || (changed.size === 1 && changed.has("query")));
  for (const listener of followers) listener(changed);
}

function writeAddress(replace) {
  const shown = new URLSearchParams();
  if (state.view !== "run") shown.set("view", state.view);
  if (state.root) shown.set("run", run.runs[state.root].path);
  if (state.at) shown.set("at", state.at);
  if (state.query) shown.set("q", state.query);
  if (state.measure !== "time") shown.set("by", state.measure);
  const hash = `#${shown.toString().replaceAll("%2F", "/").replaceAll("%3A", ":")}`;
  try {
    history[replace ? "replaceState" : "pushState"](null, "", hash);
  } catch {
    // a page embedded with srcdoc has no URL of its own
  }
}

/** The state of the page in a URL. */
export function readAddress(hash) {
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const root = run.runs.findIndex((one) => one.path === (asked.get("run") || ""));
  const at = run.byId.has(asked.get("at")) ? asked.get("at") : null;
  const view = ["run", "time", "context", "costs", "found"].includes(asked.get("view")) ? asked.get("view") : "run";
  const measure = ["time", "dollars", "tokens"].includes(asked.get("by")) ? asked.get("by") : "time";
  return { view, root: Math.max(0, root), at, query: asked.get("q") || "", measure };
}

// --- Reading ---

export async function unpack(packed) {
  const binary = atob(packed);
  const data = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) data[i] = binary.charCodeAt(i);
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** Flattens the tree into lists: items, problems, and their times. */
export function load(data) {
  Object.assign(run, data);
  for (const one of run.runs) Object.assign(one, { children: [], calls: [], turns: [], start: Infinity, end: -Infinity });
  run.runs.forEach((one, index) => {
    one.index = index;
    one.depth = one.path ? one.path.split("/").length : 0;
    if (one.up >= 0) run.runs[one.up].children.push(index);
    readRun(one);
  });
  for (let i = run.runs.length - 1; i > 0; i--) {
    const [one, above] = [run.runs[i], run.runs[run.runs[i].up]];
    if (!above) continue;
    above.start = Math.min(above.start, one.start);
    above.end = Math.max(above.end, one.end);
  }
  run.problems = run.items.filter((item) => item.problem);
}

function addItem(one, item) {
  item.run = one.index;
  item.index = run.items.length;
  run.items.push(item);
  run.byId.set(item.id, item);
  if (item.end !== undefined) {
    one.start = Math.min(one.start, item.start);
    one.end = Math.max(one.end, item.end);
  }
  return item;
}

function readRun(one) {
  const question = one.question;
  if (question) addItem(one, { id: `question:${one.path}`, kind: "question", it: question, start: question.time, end: question.time });
  one.steps.forEach((step, number) => {
    if (step.type === "turn") readTurn(one, step);
    else {
      const item = addItem(one, { id: `${step.type}:${one.path}.${number}`, kind: step.type, it: step, start: step.time, end: step.time });
      if (step.usage) Object.assign(item, { usage: step.usage, problem: "lost" });
    }
  });
  const answer = one.answer;
  if (answer) {
    const item = addItem(one, { id: `answer:${one.path}`, kind: "answer", it: answer, start: answer.time, end: answer.time });
    if (answer.status !== "complete" && !one.path) item.problem = answer.status;
  }
}

function readTurn(one, turn) {
  const item = addItem(one, { id: `turn:${one.path}.${turn.turn}`, kind: "turn", it: turn, usage: turn.usage, model: turn.model,
    start: turn.time - turn.seconds, end: turn.time, cells: [] });
  one.turns.push(item);
  if (turn.flaw) item.problem = turn.flaw;
  else if (turn.repeats !== undefined) item.problem = "repeated";
  for (const cell of turn.cells) {
    const output = cell.output;
    const ran = addItem(one, { id: `cell:${one.path}.${cell.cell}`, kind: "cell", it: cell, turn: item,
      start: cell.time, end: output ? output.time : cell.time, calls: [] });
    item.cells.push(ran);
    if (output && output.outcome === "died") ran.problem = "died";
    else if (output && output.error) ran.problem = output.misfit || output.unfound !== undefined || output.blank ? "sent back" : "raised";
    for (const batch of cell.batches) for (const call of batch.calls) readCall(one, item, ran, call);
  }
}

function readCall(one, turn, cell, call) {
  const path = one.path ? `${one.path}/${call.call}` : String(call.call);
  const item = addItem(one, { id: `call:${path}`, kind: "call", it: call, turn, cell, path, usage: call.usage, model: call.model, state: call.state,
    start: call.time === undefined ? undefined : call.time - call.seconds, end: call.time });
  if (STATES[call.state][1]) item.problem = call.state;
  one.calls.push(item);
  cell.calls.push(item);
}

// --- Properties of items ---

export const placeOf = (item) => item.path ?? run.runs[item.run].path;
export const nameOfRun = (one) => (one.path ? `run ${one.path}` : "the top run");
export const tokensOf = (item) => (item.usage ? item.usage[1] + item.usage[3] : 0);
export const costOf = (item) => (item.usage ? item.usage[4] : 0);

/** Calls, tokens and dollars of a run and everything below it. */
export function totalOf(one) {
  const total = one.own.map((value, i) => (value === null || one.below[i] === null ? null : value + one.below[i]));
  total[5] = Math.min(1, total[5]);
  return total;
}

export function titleOf(item) {
  const it = item.it;
  switch (item.kind) {
    case "turn": return it.title;
    case "call": return it.prompt || (it.kind ? `${it.kind} call` : "call");
    case "cell": return `Block of code ${it.cell + 1}`;
    case "question": return it.query;
    case "answer": return it.answer ?? "no answer";
    default: return it.text;
  }
}

export const WORDS = { turn: "Turn", call: "Call", cell: "Code", question: "Question", answer: "Answer", note: "Note" };
export const PROBLEMS = { raised: "error", "sent back": "answer sent back", died: "process ended", repeated: "repeated code", lost: "reply lost" };
export const problemOf = (item) => PROBLEMS[item.problem] || (STATES[item.problem] || [item.problem])[0];

/** Opens an item: shows its run, and its details in the panel. */
export function open(item) {
  const places = { at: item.id, root: item.run };
  go(["run", "time", "found"].includes(state.view) ? (state.view === "run" ? places : { at: item.id }) : { ...places, view: "run" });
}
