// The query language of the search field: words, "phrases", -not, error, path:3/0, kind:, model:, state:, cost>0.01.
import { run, STATES, placeOf, costOf, tokensOf, titleOf, problemOf } from "./model.js";

const TERM = /(-?)(?:([a-z]+)(:|>=|<=|>|<|=))?(?:"([^"]*)"?|(\S+))/giu;
const NUMBERS = {
  cost: (item) => costOf(item) ?? 0,
  tokens: tokensOf,
  seconds: (item) => (item.end ?? 0) - (item.start ?? 0),
  chars: (item) => item.it.chars ?? 0,
  retries: (item) => item.it.retries ?? 0,
  turn: (item) => (item.turn || item).it.turn ?? -1,
  depth: (item) => run.runs[item.run].depth,
};
const COMPARE = { ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "=": (a, b) => a === b, ":": (a, b) => a === b };
const TEXTS = {
  path: (item, value) => `${placeOf(item)}/`.startsWith(`${value.replace(/\/$/, "")}/`),
  kind: (item, value) => item.kind === value || item.it.kind === value,
  model: (item, value) => item.model !== undefined && run.models[item.model].toLowerCase().includes(value),
  state: (item, value) => item.problem === value || item.state === value || (item.problem && problemOf(item).includes(value)) || (item.kind === "call" && STATES[item.state][0].includes(value)),
  status: (item, value) => item.kind === "answer" && item.it.status === value,
};

/** All texts of an item in lower case, computed at the first search. */
function hay(item) {
  if (item.hay === undefined) {
    const it = item.it;
    const output = item.kind === "cell" && it.output ? it.output.text : "";
    item.hay = [titleOf(item), it.text, it.code, it.reply, it.error, output, item.problem && problemOf(item)].filter(Boolean).join("\n").toLowerCase();
  }
  return item.hay;
}

/** Computes the texts of all items in small steps while the browser is idle. */
export function prepare(from = 0) {
  const idle = globalThis.requestIdleCallback || ((then) => setTimeout(() => then({ timeRemaining: () => 8 }), 50));
  idle((deadline) => {
    let at = from;
    do for (const end = Math.min(at + 200, run.items.length); at < end; at++) hay(run.items[at]);
    while (at < run.items.length && deadline.timeRemaining() > 4);
    if (at < run.items.length) prepare(at);
  });
}

function term(name, relation, value) {
  if (name && NUMBERS[name] && relation && value !== "" && !Number.isNaN(Number(value))) {
    const [measure, compare, limit] = [NUMBERS[name], COMPARE[relation], Number(value)];
    return (item) => compare(measure(item), limit);
  }
  if (name && TEXTS[name] && relation === ":") return (item) => Boolean(TEXTS[name](item, value));
  const words = name ? `${name}${relation}${value}` : value;
  return (item) => hay(item).includes(words);
}

/** A predicate on items for a query, or null if the query is empty. */
export function matcher(query) {
  const terms = [];
  for (const [, not, name, relation, phrase, word] of query.matchAll(TERM)) {
    const value = (phrase ?? word).toLowerCase();
    const test = !name && phrase === undefined && /^errors?$/.test(value) ? (item) => Boolean(item.problem) : term(name?.toLowerCase(), relation, value);
    terms.push(not ? (item) => !test(item) : test);
  }
  return terms.length ? (item) => terms.every((test) => test(item)) : null;
}

export function find(query) {
  const matches = matcher(query);
  return matches ? run.items.filter(matches) : run.items;
}
