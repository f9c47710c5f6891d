// The summary: the answer, why the run stopped, what it cost, and what may be missing.
import { el, put, $, fill, count, several, money, seconds, percent, visible, figure } from "./text.js";
import { run, go, open, totalOf, problemOf } from "./model.js";
import { chip } from "./widgets.js";

const STATUS = { complete: "ok", partial: "cut", failed: "bad" };

export function showSummary() {
  const top = run.runs[0];
  const end = top?.answer;
  const question = [...(top?.steps || [])].reverse().find((step) => step.type === "question") || top?.question;
  fill($("pill"), chip(end ? end.status : "not ended", end ? STATUS[end.status] : ""));
  fill($("summary"),
    el("div.answer",
      el("p.eyebrow", "Question"),
      put(el("h1"), clipped(question?.query || "(no question was recorded)")),
      el("p.eyebrow", end ? "Answer" : "No answer yet"),
      end ? answer(end) : el("p.none", "The records end before the answer."),
      el("p.status", chip(end ? end.status : "not ended", end ? STATUS[end.status] : ""), " ", end ? `${sentence(run.stops[end.reason] || end.reason)}` : "It was interrupted, or is still running."),
      end?.missing?.length ? el("p.missing", `Possibly missing: ${end.missing.join(", ")}.`) : null,
      citations()),
    figures(top, end));
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
const clipped = (text) => (text.length > 600 ? `${text.slice(0, 600)}…` : text);

function answer(end) {
  const text = end.answer ?? "The run found no answer.";
  const body = put(el(text.length > 280 || text.includes("\n") ? "div.said.long" : "div.said"), text);
  const whole = text.length > 1500 || text.split("\n").length > 14;
  if (!whole) return el("div", body, end.answer_chars && el("p.aside", `Shortened; the full answer has ${count(end.answer_chars)} characters.`));
  body.classList.add("folded");
  const more = el("button.link", { type: "button", "aria-expanded": "false", onclick: () => {
    const folded = body.classList.toggle("folded");
    more.textContent = folded ? "Show all" : "Show less";
    more.setAttribute("aria-expanded", String(!folded));
  } }, "Show all");
  return el("div", body, more);
}

function citations() {
  if (!run.citations.length) return null;
  return el("div.citations", el("p.eyebrow", several(run.citations.length, "citation")), run.citations.map((one, i) => {
    const body = el("div.around", { hidden: true });
    const button = el("button.cite", { type: "button", "aria-expanded": "false", onclick: () => {
      body.hidden = !body.hidden;
      button.setAttribute("aria-expanded", String(!body.hidden));
      if (!body.hidden && !body.firstChild) fill(body, around(one));
    } }, el("span.no", i + 1), put(el("q"), one.quote.length > 220 ? `${one.quote.slice(0, 220)}…` : one.quote), el("span.source", one.where === "context" ? "" : visible(one.where)));
    return el("div", button, body);
  }));
}

function around(one) {
  const where = el("p.aside", one.where === "context" ? "" : `${visible(one.where)}, `, one.where === one.source || one.source === "context" ? "" : `in ${visible(one.source)}, `, `characters ${count(one.start)} to ${count(one.end)}`);
  if (one.before === undefined) return [where, el("p.aside", "The text around it is not in the page: the context was unavailable when the page was written, or is too large.")];
  return [el("pre.text", put(el("span"), one.before), put(el("mark"), one.quote), put(el("span"), one.after)), where];
}

function figures(top, end) {
  if (!top) return null;
  const total = totalOf(top);
  const turns = top.turns.length;
  const limit = (name) => run.limits[name];
  const calls = run.items.filter((item) => item.kind === "call").length;
  const rows = [
    ["cost", figure(total[4], money(total[4])), limit("usd") !== undefined ? `of ${money(limit("usd"))} allowed` : split(top.own[4], top.below[4], money), total[4], limit("usd")],
    ["model calls", figure(total[0], count(total[0])), limit("calls") !== undefined ? `of ${count(limit("calls"))} allowed` : `${count(top.own[0])} own, ${count(top.below[0])} below`, total[0], limit("calls")],
    ["tokens", figure(total[1] + total[3], count(total[1] + total[3])), limit("tokens") !== undefined ? `of ${count(limit("tokens"))} allowed` : `${count(total[1])} read${total[2] ? ` (${count(total[2])} cached)` : ""}, ${count(total[3])} written`, total[1] + total[3], limit("tokens")],
    ["time", seconds(Math.max(0, top.end - top.start)), "from the question to the last record"],
    ["turns", figure(turns, count(turns)), limit("iterations") !== undefined ? `of ${count(limit("iterations"))} allowed` : `${several(calls, "call")} by code, ${several(run.runs.length - 1, "child run")}`, turns, limit("iterations")],
  ];
  return el("div.figures",
    el("dl", rows.map(([name, value, about, used, most]) => el(`div.figure.${name.replace(" ", "-")}`, el("dt", name), el("dd", value), about && el("dd.about", about), most ? meter(used / most, `${name} used`) : null))),
    total[5] ? el("p.aside", "Some figures are estimates, because the provider reported none.") : null,
    coverage(end), first());
}

const split = (own, below, format) => (own === null || below === null ? "" : `${format(own)} own turns, ${format(below)} below`);

function meter(share, label) {
  const bar = el("div.meter", { role: "img", "aria-label": `${label}: ${percent(share)}` }, el("i"));
  bar.firstChild.style.width = `${Math.min(100, share * 100)}%`;
  if (share >= 0.9) bar.classList.add("near");
  return bar;
}

function coverage(end) {
  const told = end?.coverage;
  if (!told) return run.contexts.length ? el("p.aside", "How much of the context was read is unknown.") : null;
  return el("div.figure.coverage", el("dt", "context read by models"), el("dd", figure(told.share, percent(told.share))), meter(told.share, "context read"),
    el("button.link", { type: "button", onclick: () => go({ view: "context" }) }, "See which parts"));
}

/** Problems by kind, with their number and a link to the first of each. */
function first() {
  const kinds = new Map();
  for (const item of run.problems) if (item.kind !== "answer") kinds.set(problemOf(item), [...(kinds.get(problemOf(item)) || []), item]);
  if (!kinds.size) return el("p.fine", "No call failed, and no code raised an error.");
  return el("div.wrong", el("p.eyebrow", "What went wrong"), el("div.buttons", [...kinds].map(([name, items]) =>
    el("button.chip.bad", { type: "button", onclick: () => { go({ view: "run" }); open(items[0]); } }, `${count(items.length)} ${name}`))));
}
