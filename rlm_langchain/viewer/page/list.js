// The list of search results, or of all items.
import { el, put, $, fill, count, several, money, seconds, brief } from "./text.js";
import { run, state, open, titleOf, placeOf, costOf, problemOf, WORDS } from "./model.js";
import { find } from "./query.js";
import { Rows, fillOf } from "./widgets.js";

const SORTS = { order: ["in order", null], cost: ["by cost", (item) => costOf(item) ?? 0], seconds: ["by time", (item) => (item.end ?? 0) - (item.start ?? 0)] };
let list = null;
let sort = "order";

export function showFound() {
  const host = $("view");
  if (!list || !host.contains(list.host)) {
    const box = el("div", { id: "found" });
    fill(host, el("header.of-list", el("h2", { id: "hits" }), el("div.segments", { role: "group", "aria-label": "Order" }, Object.entries(SORTS).map(([name, [label]]) =>
      el("button", { type: "button", "aria-pressed": String(name === sort), onclick: (event) => {
        sort = name;
        for (const one of event.target.parentElement.children) one.setAttribute("aria-pressed", String(one === event.target));
        showFound();
      } }, label)))), box);
    list = new Rows(box, 46, rowOf, "Found");
  }
  let items = find(state.query);
  if (SORTS[sort][1]) items = [...items].sort((a, b) => SORTS[sort][1](b) - SORTS[sort][1](a));
  $("hits").textContent = state.query ? `${several(items.length, "hit")} of ${count(run.items.length)}` : several(items.length, "item");
  list.set(items, items.findIndex((item) => item.id === state.at));
}

export const markFound = () => {
  if (!list) return;
  const at = list.items.findIndex((item) => item.id === state.at);
  if (at >= 0) list.show(at); else list.render(true);
};

function rowOf(item) {
  const dot = item.kind === "call" ? fillOf(item) : item.problem ? "bad" : "none";
  const it = item.it;
  const second = it.error || (item.kind === "call" ? it.reply : item.kind === "cell" ? it.output?.text : item.kind === "turn" ? it.words || it.cells?.[0]?.code : "") || "";
  return el("div.hit", { onclick: () => open(item) }, el(`i.dot.${dot}`), el("span.kind", `${WORDS[item.kind]} ${item.kind === "turn" ? it.turn + 1 : ""}`),
    el("span.place", placeOf(item) || "top"), el("span.words", put(el("b"), brief(titleOf(item), 140)), put(el("small"), brief(second, 160))),
    el("span.sum", item.problem ? el("em.bad", problemOf(item)) : "", item.usage ? el("span", money(item.usage[4])) : "", item.end > item.start ? el("small", seconds(item.end - item.start)) : ""));
}
