// Shared widgets: canvas colours, the tooltip, a virtual list, and the grid of calls.
import { el, put, $, count, money, seconds, brief } from "./text.js";
import { run, STATES, go, open, state } from "./model.js";

let colours = {};

/** The current value of a style sheet colour, for canvases. */
export function paint(name) {
  if (!colours[name]) {
    const probe = document.body.appendChild(el("i"));
    probe.style.color = `var(--${name})`;
    colours[name] = getComputedStyle(probe).color;
    probe.remove();
  }
  return colours[name];
}

export const forgetColours = () => { colours = {}; };

export function say(text) {
  $("said").textContent = text;
}

/** Shows a tooltip at the pointer, or hides it if there are no lines. */
export function tip(event, lines) {
  const box = $("tip");
  box.hidden = !lines;
  if (!lines) return;
  box.replaceChildren(...lines.filter(Boolean).map((line, i) => put(el(i ? "div" : "b"), line)));
  const wide = document.documentElement.clientWidth;
  box.style.left = `${Math.max(4, Math.min(event.clientX + 14, wide - box.offsetWidth - 8))}px`;
  const under = event.clientY + 18 + box.offsetHeight < innerHeight;
  box.style.top = `${under ? event.clientY + 18 : Math.max(4, event.clientY - box.offsetHeight - 10)}px`;
}

export function tipOfCall(item) {
  const it = item.it;
  return [
    `${item.path} · ${STATES[it.state][0]}${it.run === undefined ? "" : " · a child run"}`,
    it.prompt && brief(it.prompt, 120),
    it.error ? brief(it.error, 160) : it.reply && `→ ${brief(it.reply, 120)}`,
    it.usage && `${money(it.usage[4])} · ${count(it.usage[1] + it.usage[3])} tokens · ${seconds(it.seconds ?? 0)}`,
  ];
}

/** Sizes a canvas in CSS pixels, sharp at any pixel ratio. */
export function sized(canvas, width, height) {
  const ratio = Math.min(devicePixelRatio || 1, 2);
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

const FILLS = { ok: "ok", memo: "memo", cached: "memo", open: "open", partial: "cut", cut: "cut", empty: "cut", filtered: "cut", refused: "refused", declined: "refused", failed: "bad" };
export const fillOf = (item) => FILLS[item.state];

/** Draws one call. Colour and shape show its state; a hole marks a child run. */
function square(pen, item, x, y, size) {
  const it = item.it;
  const colour = paint(FILLS[it.state]);
  pen.fillStyle = colour;
  if (it.state === "open") {
    pen.strokeStyle = colour;
    pen.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
  } else if (size < 8) pen.fillRect(x, y, size, size);
  else {
    pen.beginPath();
    pen.roundRect(x, y, size, size, 2);
    pen.fill();
  }
  if (size < 8) return;
  pen.strokeStyle = pen.fillStyle = paint("paper");
  pen.lineWidth = 1.5;
  const [a, b] = [size * 0.3, size * 0.7];
  pen.beginPath();
  if (it.state === "failed") { pen.moveTo(x + a, y + a); pen.lineTo(x + b, y + b); pen.moveTo(x + b, y + a); pen.lineTo(x + a, y + b); }
  else if (FILLS[it.state] === "refused") { pen.moveTo(x + a, y + size / 2); pen.lineTo(x + b, y + size / 2); }
  else if (FILLS[it.state] === "cut") { pen.moveTo(x, y + size); pen.lineTo(x + size, y); }
  else if (FILLS[it.state] === "memo") pen.rect(x + a, y + a, b - a, b - a);
  pen.stroke();
  if (it.run !== undefined) { pen.beginPath(); pen.arc(x + size / 2, y + size / 2, size * 0.17, 0, 7); pen.fill(); }
}

/** A grid of calls, drawn when it scrolls into view. Arrow keys move, Enter opens. */
export function grid(items, label) {
  const size = items.length <= 60 ? 18 : items.length <= 700 ? 13 : items.length <= 4000 ? 9 : 5;
  const step = size + (size > 8 ? 3 : size > 5 ? 2 : 1);
  const canvas = el("canvas.grid", { tabindex: "0", role: "img", "aria-label": `${label}. Arrow keys move, Enter opens.` });
  let [across, shown, cursor] = [1, 0, -1];
  const draw = () => {
    const width = canvas.parentElement?.clientWidth || 600;
    across = Math.max(1, Math.floor((width + step - size) / step));
    const pen = sized(canvas, Math.min(width, Math.min(across, items.length) * step), Math.ceil(items.length / across) * step);
    items.forEach((item, i) => square(pen, item, (i % across) * step, Math.floor(i / across) * step, size));
    const chosen = cursor >= 0 ? cursor : items.findIndex((item) => item.id === state.at);
    if (chosen >= 0) {
      pen.strokeStyle = paint("ink");
      pen.lineWidth = 2;
      pen.strokeRect((chosen % across) * step, Math.floor(chosen / across) * step, size, size);
    }
    shown = width;
  };
  const hit = (event) => {
    const [column, row] = [Math.floor(event.offsetX / step), Math.floor(event.offsetY / step)];
    return column < across ? items[row * across + column] : undefined;
  };
  const moves = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: () => across, ArrowUp: () => -across };
  canvas.addEventListener("click", (event) => { const item = hit(event); cursor = -1; if (item) open(item); });
  canvas.addEventListener("dblclick", (event) => { const item = hit(event); if (item?.it.run !== undefined) go({ root: item.it.run, at: null }); });
  canvas.addEventListener("pointermove", (event) => { const item = hit(event); tip(event, item && tipOfCall(item)); });
  canvas.addEventListener("pointerleave", () => tip());
  canvas.addEventListener("blur", () => { cursor = -1; draw(); });
  canvas.addEventListener("keydown", (event) => {
    if (moves[event.key]) {
      event.preventDefault();
      const from = cursor >= 0 ? cursor : Math.max(0, items.findIndex((item) => item.id === state.at));
      cursor = Math.max(0, Math.min(items.length - 1, from + moves[event.key]()));
      say(`call ${items[cursor].path}: ${STATES[items[cursor].state][0]}`);
      draw();
    } else if (event.key === "Enter" && cursor >= 0) open(items[cursor]);
  });
  canvas.redraw = draw;
  new ResizeObserver(() => { if (canvas.parentElement && canvas.parentElement.clientWidth !== shown) draw(); }).observe(canvas.parentElement || canvas);
  requestAnimationFrame(draw);
  return canvas;
}

/** A virtual list of rows of equal height; only visible rows are in the document. */
export class Rows {
  constructor(host, height, draw, label) {
    this.host = host;
    this.height = height;
    this.draw = draw;
    this.items = [];
    this.inner = el("div.rows-inner");
    host.classList.add("rows");
    host.tabIndex = 0;
    host.setAttribute("role", "listbox");
    host.setAttribute("aria-label", label);
    host.replaceChildren(this.inner);
    this.cursor = -1;
    host.addEventListener("scroll", () => this.render(), { passive: true });
    host.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.render()).observe(host);
  }

  set(items, cursor = -1) {
    this.items = items;
    this.cursor = cursor;
    this.inner.style.height = `${items.length * this.height}px`;
    this.first = -1;
    this.render(true);
  }

  render(fresh = false) {
    const first = Math.max(0, Math.floor(this.host.scrollTop / this.height) - 8);
    const last = Math.min(this.items.length, Math.ceil((this.host.scrollTop + this.host.clientHeight) / this.height) + 8);
    if (!fresh && first === this.first && last === this.last) return;
    [this.first, this.last] = [first, last];
    const rows = [];
    for (let i = first; i < last; i++) {
      const row = this.draw(this.items[i], i);
      row.setAttribute("role", "option");
      row.setAttribute("aria-setsize", this.items.length);
      row.setAttribute("aria-posinset", i + 1);
      row.setAttribute("aria-selected", String(i === this.cursor));
      row.id = `${this.host.id}-${i}`;
      row.classList.add("row");
      row.style.top = `${i * this.height}px`;
      row.style.height = `${this.height}px`;
      rows.push(row);
    }
    this.inner.replaceChildren(...rows);
    if (this.cursor >= first && this.cursor < last) this.host.setAttribute("aria-activedescendant", `${this.host.id}-${this.cursor}`);
    else this.host.removeAttribute("aria-activedescendant");
  }

  show(index) {
    this.cursor = index;
    const [top, bottom] = [index * this.height, (index + 1) * this.height];
    if (top < this.host.scrollTop) this.host.scrollTop = top;
    else if (bottom > this.host.scrollTop + this.host.clientHeight) this.host.scrollTop = bottom - this.host.clientHeight;
    this.render(true);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.host.clientHeight / this.height) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves && this.items.length) {
      event.preventDefault();
      this.show(Math.max(0, Math.min(this.items.length - 1, this.cursor + moves[event.key])));
    } else if (event.key === "Enter" && this.cursor >= 0) this.inner.querySelector('[aria-selected="true"]')?.click();
    else if (this.keys?.[event.key] && this.cursor >= 0) { event.preventDefault(); this.keys[event.key](this.items[this.cursor]); }
  }
}

/** A coloured label of a state. */
export const chip = (text, kind = "") => el(`span.chip${kind ? `.${kind}` : ""}`, text);
export const chipOfState = (name) => chip(STATES[name][0], FILLS[name]);

/** The number of calls in each state. */
export function tally(items) {
  const counts = {};
  for (const item of items) counts[item.state] = (counts[item.state] || 0) + 1;
  return Object.keys(STATES).filter((name) => counts[name]).map((name) => [name, counts[name]]);
}

export const modelName = (item) => (item.model === undefined ? "" : run.models[item.model]);
