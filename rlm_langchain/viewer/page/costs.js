// The costs view: spending over time, by model and by level; refused, lost and reused calls; pauses.
import { el, put, $, fill, count, several, money, seconds, brief, when, figure } from "./text.js";
import { run, go, open, totalOf, tokensOf, costOf, nameOfRun, titleOf, placeOf, STATES } from "./model.js";
import { chipOfState, modelName } from "./widgets.js";

const WIDE = 1000;
const HIGH = 220;
let shown = "dollars";

/** Items with a cost of their own: turns (also lost ones), and calls without a child run. */
const paid = () => run.items.filter((item) => item.usage && item.end !== undefined && (item.kind !== "call" || item.it.run === undefined));

export function showCosts() {
  const host = $("view");
  const items = paid().sort((a, b) => a.end - b.end);
  const measures = { dollars: ["Dollars", (item) => costOf(item) ?? 0, money, run.limits.usd], tokens: ["Tokens", tokensOf, count, run.limits.tokens], calls: ["Model calls", (item) => item.usage[0], count, run.limits.calls] };
  fill(host,
    el("header.of-list", el("h2", "Spent over time"), el("div.segments", { role: "group", "aria-label": "Measure" }, Object.entries(measures).map(([name, [label]]) => el("button", { type: "button", "aria-pressed": String(name === shown), onclick: () => { shown = name; showCosts(); } }, label)))),
    curve(items, ...measures[shown].slice(1)),
    el("div.pair", byModel(items), byRun()),
    costliest(),
    events());
}

const svg = (tag, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

function curve(items, measure, format, limit) {
  const top = run.runs[0];
  if (!items.length || !(top.end > top.start)) return el("p.none", "Nothing was spent.");
  const last = items.reduce((sum, item) => sum + measure(item), 0);
  const isNear = limit !== undefined && limit < 4 * last;
  const most = (isNear ? Math.max(last, limit) : last) || 1;
  const [x, y] = [(time) => ((time - top.start) / (top.end - top.start)) * WIDE, (value) => HIGH - (value / most) * (HIGH - 16)];
  let [sum, path, column] = [0, `M0 ${HIGH}`, -1];
  items.forEach((item, i) => {
    sum += measure(item);
    if (Math.floor(x(item.end)) === column && i < items.length - 1) return;
    column = Math.floor(x(item.end));
    path += `H${x(item.end).toFixed(1)}V${y(sum).toFixed(1)}`;
  });
  path += `H${WIDE}`;
  const refused = run.items.filter((item) => item.it.refused && item.end !== undefined);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH + 4}`, preserveAspectRatio: "none", role: "img", "aria-label": `Spent: ${format(last)}${limit ? ` of ${format(limit)}` : ""}` },
    svg("path", { d: `${path}V${HIGH}H0Z`, class: "area" }), svg("path", { d: path, class: "curve" }),
    ...(isNear ? [svg("line", { x1: 0, x2: WIDE, y1: y(limit), y2: y(limit), class: "limit" })] : []),
    ...[...new Set(refused.map((item) => Math.round(x(item.end))))].map((at) => svg("line", { x1: at, x2: at, y1: HIGH - 14, y2: HIGH, class: "refusal" })));
  return el("figure.curve-of", drawing, el("figcaption", el("span", "0"), el("span", limit ? `limit ${format(limit)}${isNear ? " (dashed)" : ", far above"}` : "", refused.length ? ` · ${several(refused.length, "refusal")} (marks below)` : ""), el("span", `${format(last)} after ${seconds(top.end - top.start)}`)));
}

function table(caption, heads, rows) {
  return el("div.table", el("table", el("caption", caption), el("thead", el("tr", heads.map((head, i) => el(i ? "th.right" : "th", { scope: "col" }, head)))), el("tbody", rows.map((cells) => el("tr", cells.map((cell, i) => el(i ? "td.right" : "td", cell)))))));
}

const add = (sums, usage) => usage.forEach((value, i) => { sums[i] = value === null || sums[i] === null ? null : (sums[i] || 0) + value; });

function byModel(items) {
  const models = new Map();
  for (const item of items) {
    const name = modelName(item) || (item.it.kind && item.it.kind !== "llm" && item.it.kind !== "rlm" ? item.it.kind : "unknown model");
    if (!models.has(name)) models.set(name, []);
    if (item.usage[0] || item.usage[4]) add(models.get(name), item.usage);
  }
  return table("By model", ["model", "calls", "input", "cached", "output", "cost"], [...models].filter(([, sums]) => sums.length).map(([name, sums]) => [name, ...sums.slice(0, 4).map((one) => figure(one, count(one))), figure(sums[4], money(sums[4]))]));
}

function byRun() {
  const levels = [];
  for (const one of run.runs) {
    const level = (levels[one.depth] ??= { turns: [0, 0, 0, 0, 0], calls: [0, 0, 0, 0, 0], runs: 0 });
    level.runs += 1;
    add(level.turns, one.own.slice(0, 5));
    for (const call of one.calls) if (call.usage && call.it.run === undefined) add(level.calls, call.usage.slice(0, 5));
  }
  return table("By level", ["level", "runs", "turns", "sub-calls"], levels.map((level, depth) => [depth ? `child runs, level ${depth}` : "top run", figure(level.runs, count(level.runs)), figure(level.turns[4], money(level.turns[4])), figure(level.calls[4], money(level.calls[4]))]));
}

function costliest() {
  const all = [...paid()].filter((item) => costOf(item) > 0).sort((a, b) => costOf(b) - costOf(a)).slice(0, 8);
  const runs = run.runs.slice(1).filter((one) => totalOf(one)[4] > 0).sort((a, b) => totalOf(b)[4] - totalOf(a)[4]).slice(0, 5);
  if (!all.length) return null;
  return el("div.pair",
    el("section", el("h3", "Most expensive calls"), el("ul.plain.spread", all.map((item) => el("li", el("button.link", { type: "button", onclick: () => open(item) }, item.kind === "turn" ? `Turn ${item.it.turn + 1} of ${nameOfRun(run.runs[item.run])}` : `Call ${placeOf(item)}`), put(el("span.aside"), brief(titleOf(item), 60)), el("b", money(costOf(item))))))),
    runs.length ? el("section", el("h3", "Most expensive child runs"), el("ul.plain.spread", runs.map((one) => el("li", el("button.link", { type: "button", onclick: () => go({ view: "run", root: one.index, at: null }) }, nameOfRun(one)), put(el("span.aside"), brief(one.question?.query || "", 60)), el("b", money(totalOf(one)[4])))))) : null);
}

/** Refusals, approvals, lost replies, reused calls and pauses, in chronological order. */
function events() {
  const [list, reused] = [[], run.items.filter((item) => item.state === "memo" || item.state === "cached" || item.it.from_cache)];
  const refusals = new Map();
  for (const item of run.items) {
    if (item.it.refused) {
      const key = `${item.run} ${item.cell?.id} ${item.it.refused}`;
      if (!refusals.has(key)) refusals.set(key, []);
      refusals.get(key).push(item);
    }
    if (item.it.lost) list.push([item.end, `${several(item.it.lost, "reply", "replies")} never came; each counts with the maximum that it may have used`, item]);
    if (item.kind === "note" && item.it.to === "reader") list.push([item.end, item.it.text, item]);
    if (item.problem === "died") list.push([item.end, "The process of the REPL died", item]);
  }
  for (const items of refusals.values()) list.push([items[0].end, `${several(items.length, "call")} ${STATES[items[0].state][0]}: ${items[0].it.error || run.stops[items[0].it.refused] || items[0].it.refused}`, items[0]]);
  const stamps = run.items.filter((item) => item.end !== undefined && item.kind !== "question").map((item) => [item.kind === "cell" ? item.end : item.start, item.end]).sort((a, b) => a[0] - b[0]);
  let until = run.runs[0]?.start ?? 0;
  const span = run.runs[0] ? run.runs[0].end - run.runs[0].start : 0;
  for (const [start, end] of stamps) {
    if (start - until > Math.max(20, span * 0.08)) list.push([until, `Idle for ${seconds(start - until)}: the run was stopped, or waited for a person. Calls answered before were not repeated or paid for again.`, null]);
    until = Math.max(until, end);
  }
  list.sort((a, b) => a[0] - b[0]);
  return el("section.events", el("h3", "Refusals, approvals, lost replies and pauses"),
    reused.length ? el("p", `${several(reused.length, "call")} cost nothing, because an identical call had been answered: `, el("button.link", { type: "button", onclick: () => go({ view: "found", query: "state:reused" }) }, "show them")) : null,
    list.length ? el("ul.plain", list.slice(0, 200).map(([time, text, item]) => el("li", el("time", when(time)), " ", item ? el("button.link", { type: "button", onclick: () => open(item) }, brief(text, 240)) : brief(text, 240), " ", item?.kind === "call" && chipOfState(item.state)))) : el("p.fine", "None."),
    list.length > 200 ? el("p.aside", `and ${several(list.length - 200, "more")}`) : null);
}
