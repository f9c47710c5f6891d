// The timeline of a run, or its icicle chart of dollars or tokens. Any run can be the root.
import { el, $, fill, count, money, seconds, brief, visible } from "./text.js";
import { run, state, go, open, totalOf, tokensOf, costOf, titleOf, nameOfRun } from "./model.js";
import { paint, sized, tip, tipOfCall, fillOf, say, modelName } from "./widgets.js";
import { crumbs } from "./run.js";

const BREAK = 34;
const AXIS = 24;
const MEASURES = { time: "Time", dollars: "Dollars", tokens: "Tokens" };
let drawing = null;

export function showTimeline() {
  const one = run.runs[state.root];
  const host = $("view");
  const canvas = el("canvas", { tabindex: "0", role: "img", "aria-label": `${MEASURES[state.measure]} of ${nameOfRun(one)} and the runs below it. Arrow keys move, Enter opens. The Search view lists the same items.` });
  const spacer = el("div.spacer", canvas);
  const scroll = el("div.chart", { tabindex: "-1" }, spacer);
  const about = el("p.aside");
  fill(host, el("header.of-list", run.runs.length > 1 ? crumbs(one) : el("h2", "Timeline"), el("div.segments", { role: "group", "aria-label": "Measure" }, Object.entries(MEASURES).map(([name, label]) =>
    el("button", { type: "button", "aria-pressed": String(name === state.measure), onclick: () => go({ measure: name }) }, label)))), legend(), scroll, about);
  const plan = state.measure === "time" ? planTime(one) : planSpent(one, state.measure === "dollars" ? costOf : tokensOf);
  plan.boxes.sort((a, b) => a.row - b.row || a.from - b.from);
  plan.height = plan.rows <= 24 ? 22 : plan.rows <= 80 ? 12 : plan.rows <= 400 ? 7 : 4;
  spacer.style.height = `${AXIS + plan.rows * plan.height + 4}px`;
  about.textContent = plan.about;
  drawing = { plan, canvas, scroll, cursor: -1 };
  canvas.addEventListener("pointermove", (event) => { const box = boxAt(event); tip(event, box && tipOf(box)); });
  canvas.addEventListener("pointerleave", () => tip());
  canvas.addEventListener("click", (event) => { const box = boxAt(event); if (box?.item) point(box.item); else if (box?.run) go({ root: box.run.index }); });
  canvas.addEventListener("dblclick", (event) => { const box = boxAt(event); const index = box?.item?.it.run ?? box?.run?.index; if (index !== undefined) go({ root: index, at: null }); });
  canvas.addEventListener("keydown", chartKeyed);
  scroll.addEventListener("scroll", () => drawTimeline(), { passive: true });
  const seen = new ResizeObserver(() => drawTimeline());
  seen.observe(scroll);
}

const point = (item) => go({ at: item.id });

function legend() {
  return el("p.legend", [["turn", "model writes code"], ["cell", "code computes"], ["ok", "answered"], ["memo", "reused"], ["cut", "cut off"], ["refused", "refused"], ["bad", "failed"], ["child", "child run"]].map(([name, words]) => el("span", el(`i.dot.${name}`), words)));
}

// --- Over time ---

function planTime(one) {
  const place = squeezed(one);
  const short = place.breaks.map((gap) => seconds(gap.long)).join(", ");
  const about = !short ? "" : `${place.breaks.length === 1 ? "An idle period is" : "Idle periods are"} shortened: ${short}.`;
  return { ...layTime(one, place), place, ticks: ticksOfTime(place), about };
}

/** The boxes of a run: the run, a row of its turns and code, and below them its calls, concurrent ones in separate rows. */
function layTime(one, place) {
  const boxes = [{ run: one, row: 0, from: place.at(one.start), to: place.at(one.end), kind: "child" }];
  const calls = [];
  const lanes = [];
  for (const turn of one.turns) {
    boxes.push({ item: turn, row: 1, from: place.at(turn.start), to: place.at(turn.end), kind: "turn" });
    for (const cell of turn.cells) {
      boxes.push({ item: cell, row: 1, from: place.at(cell.start), to: place.at(cell.end), kind: "cell" });
      calls.push(...cell.calls);
    }
  }
  for (const each of calls.map(timed).filter(Boolean).sort((a, b) => a.start - b.start)) {
    const inside = each.below ? layTime(each.below, place) : null;
    const [from, high] = [place.at(each.start), inside ? inside.rows : 1];
    let lane = 0;
    while (!isFree(lanes, lane, high, from)) lane += 1;
    lanes.fill(place.at(each.end), lane, lane + high);
    while (lanes.length < lane + high) lanes.push(place.at(each.end));
    if (!inside) boxes.push({ item: each.call, row: 2 + lane, from, to: place.at(each.end), kind: fillOf(each.call) });
    for (const box of inside?.boxes || []) {
      box.row += 2 + lane;
      boxes.push(box);
    }
  }
  return { boxes, rows: 2 + lanes.length };
}

function timed(call) {
  const below = call.it.run === undefined ? null : run.runs[call.it.run];
  const start = Math.min(call.start ?? Infinity, below?.start ?? Infinity);
  return start === Infinity ? null : { call, below, start, end: Math.max(call.end ?? start, below?.end ?? start) };
}

function isFree(lanes, lane, high, from) {
  for (let i = lane; i < Math.min(lane + high, lanes.length); i++) if (lanes[i] > from + 1e-9) return false;
  return true;
}

/** Maps times to a scale that shortens long idle periods. */
function squeezed(one) {
  const spans = [];
  for (const item of run.items) if (item.end !== undefined && item.kind !== "question" && isBelow(item.run, one)) spans.push([item.kind === "cell" ? item.end - (item.it.output?.seconds ?? 0) : item.start, item.end]);
  spans.sort((a, b) => a[0] - b[0]);
  const gaps = [];
  let until = one.start;
  const span = Math.max(1e-3, one.end - one.start);
  for (const [start, end] of spans) {
    if (start - until > Math.max(20, span * 0.08)) gaps.push({ from: until, to: start, long: start - until });
    until = Math.max(until, end);
  }
  const worked = Math.max(1e-3, span - gaps.reduce((sum, gap) => sum + gap.long, 0));
  const short = worked * 0.04;
  for (const gap of gaps) gap.cut = gap.long - short;
  return {
    start: one.start, span: worked + short * gaps.length, breaks: gaps, short,
    at(time) {
      let value = Math.max(0, time - one.start);
      for (const gap of gaps) {
        if (time >= gap.to) value -= gap.cut;
        else if (time > gap.from) value -= gap.cut * ((time - gap.from) / gap.long);
      }
      return value;
    },
  };
}

export function isBelow(index, one) {
  for (let at = index; at >= 0; at = run.runs[at].up) if (at === one.index) return true;
  return false;
}

function ticksOfTime(place) {
  const step = nice(place.span / 6);
  const ticks = [];
  for (let value = 0; value <= place.span; value += step) ticks.push([value, seconds(value)]);
  if (place.breaks.length) return ticks.slice(0, 1);
  return ticks;
}

const nice = (rough) => {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((times) => times * power >= rough) * power;
};

// --- Dollars or tokens ---

function planSpent(one, measure) {
  const boxes = [];
  let rows = 0;
  const sum = (which) => { const total = totalOf(which); return measure === costOf ? total[4] ?? knownOf(which) : total[1] + total[3]; };
  const knownOf = (which) => [...which.turns, ...which.calls].reduce((all, item) => all + (item.it.run !== undefined && item.kind === "call" ? sum(run.runs[item.it.run]) : measure(item) ?? 0), 0);
  const lay = (which, from, row, item) => {
    const all = sum(which);
    boxes.push({ run: which, item, row, from, to: from + all, kind: item && item.problem ? fillOf(item) : "child" });
    rows = Math.max(rows, row + 1);
    let at = from;
    for (const turn of which.turns) {
      const used = measure(turn) ?? 0;
      if (used > 0) boxes.push({ item: turn, row: row + 1, from: at, to: at + used, kind: "turn" });
      at += used;
      for (const cell of turn.cells) for (const call of cell.calls) {
        if (call.it.run !== undefined) { lay(run.runs[call.it.run], at, row + 1, call); at += Math.max(sum(run.runs[call.it.run]), 0); continue; }
        const cost = measure(call) ?? 0;
        if (cost > 0) boxes.push({ item: call, row: row + 1, from: at, to: at + cost, kind: fillOf(call) });
        at += cost;
      }
    }
    if (at > from) rows = Math.max(rows, row + 2);
  };
  lay(one, 0, 0);
  const span = Math.max(sum(one), 1e-12);
  const format = measure === costOf ? money : count;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => [span * share, format(measure === costOf ? span * share : Math.round(span * share))]);
  const unknown = measure === costOf && totalOf(one)[4] === null;
  return { boxes, rows, place: { span, breaks: [] }, ticks, about: unknown ? "Calls with an unknown price have no width here." : "Items are in the order of the run; the width shows what each spent." };
}

// --- Drawing ---

export function drawTimeline() {
  if (!drawing?.canvas.isConnected) return;
  const { plan, canvas, scroll } = drawing;
  const [width, height] = [scroll.clientWidth, Math.min(scroll.clientHeight, AXIS + plan.rows * plan.height + 4)];
  const pen = sized(canvas, width, height);
  const scale = (width - 2) / plan.place.span;
  drawing.scale = scale;
  const top = scroll.scrollTop;
  canvas.style.transform = `translateY(${top}px)`;
  const high = plan.height - (plan.height > 8 ? 2 : plan.height > 5 ? 1 : 0.5);
  pen.font = `${plan.height > 16 ? 11 : 10}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  for (const gap of plan.place.breaks) {
    const [x, y] = [plan.place.at(gap.from) * scale, AXIS];
    pen.fillStyle = paint("rule");
    for (let i = 0; i < plan.place.short * scale; i += 6) pen.fillRect(x + i, y, 2, height);
  }
  let [lastRow, lastRight] = [-1, 0];
  for (const box of plan.boxes) {
    const y = AXIS + box.row * plan.height - top;
    if (y + plan.height < AXIS - plan.height || y > height) continue;
    const x = box.from * scale + 1;
    const wide = Math.max(plan.height < 8 ? 1 : 1.5, (box.to - box.from) * scale - (((box.to - box.from) * scale) > 4 ? 1 : 0));
    if (box.row === lastRow && x + wide < lastRight + 0.5) continue;
    [lastRow, lastRight] = [box.row, x + wide];
    pen.fillStyle = paint(box.kind);
    pen.fillRect(x, y, wide, high);
    if (wide > 44 && plan.height > 11) {
      pen.fillStyle = paint(LIGHT.has(box.kind) ? "ink" : "paper");
      pen.save();
      pen.beginPath();
      pen.rect(x, y, wide - 4, high);
      pen.clip();
      pen.fillText(labelOf(box), x + 5, y + high / 2 + 0.5);
      pen.restore();
    }
    if ((box.item && box.item.id === state.at) || box === plan.boxes[drawing.cursor]) {
      pen.strokeStyle = paint("ink");
      pen.lineWidth = 2;
      pen.strokeRect(x, y, wide, high);
    }
  }
  pen.fillStyle = paint("paper");
  pen.fillRect(0, 0, width, AXIS - 3);
  pen.fillStyle = paint("soft");
  pen.textBaseline = "middle";
  plan.ticks.forEach(([value, text], i) => {
    const x = value * scale;
    pen.textAlign = i === 0 ? "left" : x > width - 50 ? "right" : "center";
    pen.fillText(text, Math.min(x, width - 2), 9);
  });
  pen.textAlign = "left";
}

const LIGHT = new Set(["child", "cell", "memo", "open"]);

function labelOf(box) {
  if (box.run) return visible(brief(`${box.run.path || "top run"} · ${box.run.question?.query || ""}`, 90));
  return visible(brief(box.kind === "turn" ? `${box.item.it.turn + 1} ${titleOf(box.item)}` : titleOf(box.item), 90));
}

function boxAt(event) {
  if (!drawing?.scale) return null;
  const { plan, scroll, scale } = drawing;
  const row = Math.floor((event.offsetY - AXIS + scroll.scrollTop) / plan.height);
  const x = event.offsetX / scale;
  const near = 2 / scale;
  let best = null;
  for (const box of plan.boxes) if (box.row === row && x >= box.from - near && x <= box.to + near && (!best || box.to - box.from < best.to - best.from)) best = box;
  return best;
}

function tipOf(box) {
  if (box.item?.kind === "call") return tipOfCall(box.item);
  if (box.run) return [nameOfRun(box.run), brief(box.run.question?.query || "", 120), `${money(totalOf(box.run)[4])} · ${seconds(Math.max(0, box.run.end - box.run.start))}`, "Double-click to make it the root"];
  const it = box.item.it;
  if (box.kind === "turn") return [`Turn ${it.turn + 1} · ${modelName(box.item)}`, it.title, `${money(it.usage[4])} · ${count(tokensOf(box.item))} tokens · ${seconds(it.seconds)}`];
  return [`Code of turn ${box.item.turn.it.turn + 1}`, it.output && `computed ${seconds(it.output.seconds)}`];
}

function chartKeyed(event) {
  const { plan } = drawing;
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 };
  if (moves[event.key]) {
    event.preventDefault();
    drawing.cursor = Math.max(0, Math.min(plan.boxes.length - 1, drawing.cursor + moves[event.key]));
    const box = plan.boxes[drawing.cursor];
    const y = box.row * plan.height;
    if (y < drawing.scroll.scrollTop || y > drawing.scroll.scrollTop + drawing.scroll.clientHeight - 60) drawing.scroll.scrollTop = Math.max(0, y - 80);
    say(tipOf(box).filter(Boolean).join(", "));
    drawTimeline();
  } else if (event.key === "Enter" && plan.boxes[drawing.cursor]) {
    const box = plan.boxes[drawing.cursor];
    if (box.item) point(box.item); else go({ root: box.run.index });
  }
}
