// Starts the page, and connects views, URL, keyboard shortcuts and colour scheme.
import { el, $, fill, count } from "./text.js";
import { run, state, go, follow, load, unpack, readAddress, open } from "./model.js";
import { forgetColours, tip } from "./widgets.js";
import { showDetail, beside } from "./detail.js";
import { showSummary } from "./summary.js";
import { showRun, showOutline, buildAll, mark } from "./run.js";
import { showFound, markFound } from "./list.js";
import { showTimeline, drawTimeline } from "./timeline.js";
import { prepare } from "./query.js";
import { showContext } from "./context.js";
import { showCosts } from "./costs.js";

const VIEWS = { run: ["Run", showRun], time: ["Timeline", showTimeline], context: ["Context", showContext], costs: ["Costs", showCosts], found: ["Search", showFound] };

function showTabs() {
  fill($("tabs"), Object.entries(VIEWS).map(([name, [label]]) => el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "view", "aria-selected": String(state.view === name), tabindex: state.view === name ? "0" : "-1", onclick: () => go({ view: name }) }, label)));
  $("view").setAttribute("aria-labelledby", `tab-${state.view}`);
}

function tabKeys(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const names = Object.keys(VIEWS);
  go({ view: names[(names.indexOf(state.view) + step + names.length) % names.length] });
  $(`tab-${state.view}`).focus();
}

function show(changed) {
  tip();
  if (changed.has("view")) showTabs();
  if (changed.has("root") || changed.has("view")) showOutline();
  if (changed.has("at")) showDetail();
  const again = changed.has("view") || (changed.has("root") && ["run", "time"].includes(state.view)) || (changed.has("measure") && state.view === "time") || (changed.has("query") && state.view === "found");
  document.body.dataset.view = state.view;
  if (again) {
    VIEWS[state.view][1]();
    if (changed.has("view") || changed.has("root")) toTop();
  }
  if (changed.has("at") || again) {
    if (state.view === "run") mark(true);
    else if (state.view === "time") drawTimeline();
    else if (state.view === "found") markFound();
  }
  if (changed.has("query") && document.activeElement !== $("query")) $("query").value = state.query;
  showProblems();
}

function toTop() {
  const tabs = $("tabs").getBoundingClientRect().top;
  if (tabs < 0) scrollBy(0, tabs - 60);
}

function showProblems() {
  const at = run.problems.findIndex((item) => item.id === state.at);
  const step = (by) => el("button.quiet", { type: "button", title: by > 0 ? "Next problem (n)" : "Previous problem (p)", "aria-label": by > 0 ? "Next problem" : "Previous problem", onclick: () => problem(by) }, by > 0 ? "›" : "‹");
  const number = run.problems.length;
  fill($("problems"), number ? [step(-1), el("span", at >= 0 ? `${count(at + 1)} of ${count(number)} problems` : `${count(number)} ${number === 1 ? "problem" : "problems"}`), step(1)] : [el("span.fine", "no problems")]);
}

function problem(by) {
  const number = run.problems.length;
  if (!number) return;
  const shown = run.byId.get(state.at);
  let at = run.problems.indexOf(shown);
  if (at < 0 && shown) at = by > 0 ? run.problems.findIndex((item) => item.index > shown.index) - 1 : run.problems.findLastIndex((item) => item.index < shown.index) + 1;
  at = at < 0 && by < 0 && !shown ? number - 1 : (at + by + number) % number;
  open(run.problems[at]);
}

// --- Keys ---

const KEYS = [["/", "search"], ["n  p", "next and previous problem"], ["j  k", "next and previous item of the same kind"], ["u", "go to the parent run"], ["o", "open the child run of a call"], ["1 to 5", "views"], ["Esc", "close the panel"], ["t", "dark or light"], ["?", "this help"]];

function keyed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input");
  if (event.key === "Escape") return void (typing ? event.target.blur() : go({ at: null }));
  if (typing) return;
  const action = {
    "/": () => $("query").focus(), n: () => problem(1), p: () => problem(-1), j: () => beside(1), k: () => beside(-1), t: switchTheme, "?": showKeys,
    u: () => run.runs[state.root].up >= 0 && go({ root: run.runs[state.root].up, at: null }),
    o: () => { const child = run.byId.get(state.at)?.it.run; if (child !== undefined) go({ root: child, at: null }); },
  }[event.key] || (event.key >= "1" && event.key <= "5" && (() => go({ view: Object.keys(VIEWS)[event.key - 1] })));
  if (!action) return;
  event.preventDefault();
  action();
}

function showKeys() {
  const box = $("keys");
  fill(box, el("h2", "Keys"), el("dl", KEYS.map(([key, what]) => el("div", el("dt", key.split(" ").filter(Boolean).map((one) => (one === "to" ? " to " : el("kbd", one)))), el("dd", what)))),
    el("h2", "Search"), el("p", "All words must occur; quotes make a phrase, a minus excludes a word. ", el("code", "error"), " finds problems, ", el("code", "path:3/0"), " items of a run; also ",
      ["kind:", "model:", "state:", "status:", "cost>", "tokens>", "seconds>", "turn=", "depth=", "retries>", "chars>"].map((one, i) => [i > 0 && ", ", el("code", one)]), "."),
    el("form", { method: "dialog" }, el("button", "Close")));
  box.showModal();
}

// --- Colours ---

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function switchTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  repaint();
}

function repaint() {
  forgetColours();
  $("theme").textContent = isDark() ? "Light" : "Dark";
  for (const canvas of document.querySelectorAll("canvas")) (canvas.redraw || canvas.redrawMap || drawTimeline)();
}

// --- Start ---

let waiting = 0;

function search() {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const query = $("query").value.trim();
    go(query ? { query, view: "found" } : { query });
  }, 60);
}

async function start() {
  load(await unpack($("data").textContent));
  $("data").remove();
  follow(show);
  Object.assign(state, readAddress(location.hash));
  $("query").value = state.query;
  $("wait").remove();
  $("bar").hidden = $("main").hidden = false;
  showSummary();
  show(new Set(["view", "root", "at"]));
  repaint();
  $("query").addEventListener("input", search);
  $("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  $("tabs").addEventListener("keydown", tabKeys);
  $("theme").addEventListener("click", switchTheme);
  $("help").addEventListener("click", showKeys);
  addEventListener("keydown", keyed);
  const moved = () => { const asked = readAddress(location.hash); go(asked, { replace: true }); };
  addEventListener("popstate", moved);
  addEventListener("hashchange", moved);
  addEventListener("beforeprint", () => { if (state.view === "run") buildAll(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  prepare();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

start().catch((error) => {
  $("wait").textContent = `The page could not be shown: ${error.message}. It needs a browser of 2024 or later.`;
  throw error;
});
