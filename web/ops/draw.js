// Small pieces of the page. Text is put in as text, never as HTML.

import { format } from "./format.js";

export function h(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") made.className = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Changes a text only if it is another one: what hasn't changed isn't laid out
// again, nor read out.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const template = document.getElementById("spark");

const WIDTH = 180;
const HEIGHT = 30;
const SAMPLES_MAX = 900;
const PER_POINT = SAMPLES_MAX / WIDTH;

// Of each five samples the largest: a peak is what an operator looks for.
function points(values) {
  const made = new Array(WIDTH).fill(null);
  const shift = SAMPLES_MAX - values.length;
  values.forEach((value, index) => {
    const at = Math.floor((index + shift) / PER_POINT);
    if (value !== null && (made[at] === null || value > made[at])) made[at] = value;
  });
  return made;
}

function trace(made, top) {
  const y = (value) => (HEIGHT - 1 - (value / top) * (HEIGHT - 3)).toFixed(1);
  let line = "";
  let area = "";
  let from = null;
  made.forEach((value, x) => {
    if (value === null) return;
    const begins = from === null;
    if (begins) from = x;
    line += `${begins ? "M" : "L"}${x},${y(value)}`;
    if (x === WIDTH - 1 || made[x + 1] === null) {
      // A lone point is a short line, so that it can be seen.
      if (begins) line += `h.8`;
      area += `${line.slice(line.lastIndexOf("M"))}V${HEIGHT}H${from}Z`;
      from = null;
    }
  });
  return { line, area };
}

// The last 15 minutes as a line; with a second, fainter one if there is one.
// What it shows is told in figures beside it, so that it is hidden from who
// can't see it.
export class Spark {
  constructor() {
    this.element = template.content.firstElementChild.cloneNode(true);
    [this.area, this.second, this.line] = this.element.children;
    sparks.set(this.element, this);
  }

  show(values, unit, second) {
    this.values = values;
    this.unit = unit;
    const [first, other] = [points(values), second ? points(second) : null];
    const top = Math.max(...first.map((value) => value ?? 0), ...(other ?? []).map((value) => value ?? 0)) || 1;
    const drawn = trace(first, top);
    this.line.setAttribute("d", drawn.line);
    this.area.setAttribute("d", drawn.area);
    this.second.setAttribute("d", other ? trace(other, top).line : "");
  }
}

const sparks = new WeakMap();
const readout = document.getElementById("readout");

// What a line was at the place under the pointer.
document.addEventListener("pointermove", (event) => {
  const element = event.target.closest?.(".spark");
  const spark = element && sparks.get(element);
  if (!spark?.values) {
    readout.hidden = true;
    return;
  }
  const box = element.getBoundingClientRect();
  const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  const before = Math.round((1 - share) * (SAMPLES_MAX - 1));
  const value = spark.values.at(-1 - before) ?? null;
  const when = before < 60 ? `${before} s` : `${Math.floor(before / 60)} min ${before % 60} s`;
  readout.textContent = `${format(value, spark.unit)} · ${when} ago`;
  readout.hidden = false;
  const left = Math.min(event.clientX + 12, innerWidth - readout.offsetWidth - 4);
  readout.style.left = `${left}px`;
  readout.style.top = `${box.top - readout.offsetHeight - 4}px`;
});

// Shares of a whole, side by side; the rest is what is left.
export function bar(parts, whole, className = "bar") {
  const made = h("div", { class: className, "aria-hidden": "true" });
  for (const [name, value] of parts) {
    const part = h("span", { class: name });
    part.style.setProperty("--share", `${whole > 0 ? (value / whole) * 100 : 0}%`);
    made.append(part);
  }
  return made;
}

export function panel(title, { className = "panel", name } = {}, ...children) {
  const id = `panel-${name ?? title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  return h("section", { class: className, "aria-labelledby": id }, h("h2", { id }, title), ...children);
}

// A table that can be scrolled sideways, also by keyboard.
export function scrolled(label, table) {
  return h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, table);
}

// The rows of a table by their keys: rows stay where they are while only their
// figures change, so that focus is not lost.
export class Rows {
  constructor(body, make) {
    this.body = body;
    this.make = make;
    this.rows = new Map();
  }

  show(items, keyOf) {
    const seen = new Set();
    // Nothing moves away under a pointer, nor from under the focus.
    const steady = this.body.matches(":hover, :focus-within");
    items.forEach((item, index) => {
      const key = keyOf(item);
      seen.add(key);
      let row = this.rows.get(key);
      if (!row) {
        row = this.make(item);
        this.rows.set(key, row);
      }
      row.update(item);
      const place = this.body.children[index] ?? null;
      if (!row.element.isConnected) this.body.insertBefore(row.element, steady ? null : place);
      else if (!steady && place !== row.element) this.body.insertBefore(row.element, place);
    });
    for (const [key, row] of this.rows) {
      if (seen.has(key) || row.element.matches(":focus-within")) continue;
      row.element.remove();
      this.rows.delete(key);
    }
  }
}

// A row of plain cells; `cells` gives a text, a [text, class] or an element each.
export function plainRow(cells, first = "th") {
  const element = h("tr");
  const update = (item) => {
    cells(item).forEach((content, index) => {
      let cell = element.children[index];
      if (!cell) {
        cell = index === 0 ? h(first, first === "th" ? { scope: "row", class: "name" } : {}) : h("td");
        element.append(cell);
      }
      if (content instanceof Element) {
        if (cell.firstElementChild !== content) cell.replaceChildren(content);
        return;
      }
      const [text, className] = Array.isArray(content) ? content : [content, ""];
      say(cell, text);
      if (index > 0 && cell.className !== className) cell.className = className;
    });
  };
  return { element, update };
}

export function table(caption, heads, className) {
  const body = h("tbody");
  const head = h("tr", {}, ...heads.map((head) => {
    const [text, name] = Array.isArray(head) ? head : [head];
    // A cell without a text heads nothing.
    return text ? h("th", { scope: "col", class: name }, text) : h("td");
  }));
  const made = h("table", { class: className }, h("caption", { class: "unseen" }, caption), h("thead", {}, head), body);
  return { element: made, body };
}
