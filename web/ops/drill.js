// One timetable, queue, coupon or account: what it has in memory, as it says itself.

import { Refused, get } from "./api.js";
import { Spark, h, say } from "./draw.js";
import { ago, format, micros, shortened } from "./format.js";

const EVERY_MS = 1000;
const SAMPLES_MAX = 900;

const dialog = document.getElementById("drill");

// Which one is shown; counts, so that a late answer to an old one is dropped.
let turn = 0;

function facts() {
  const list = h("dl", { class: "facts" });
  const values = new Map();
  return {
    element: list,
    show(entries) {
      for (const [name, text] of entries) {
        if (!values.has(name)) {
          const value = h("dd");
          values.set(name, value);
          list.append(h("div", {}, h("dt", {}, name), value));
        }
        say(values.get(name), text);
      }
    },
  };
}

function plain(name, value) {
  if (value === null) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  return name.endsWith("_seconds") ? format(value, "seconds") : format(value, "count");
}

const words = (name) => {
  const text = name.replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
};

function shown(kind, id) {
  const title = h("h2", { id: "drill-title" }, id);
  const close = h("button", { type: "button" }, "Close");
  close.addEventListener("click", () => dialog.close());
  const told = h("p", { class: "note", role: "status" });
  const [observed, life, actor] = [facts(), facts(), facts()];
  const spark = new Spark();
  const rate = h("span");
  const body = h("div", { hidden: true },
    h("h3", {}, "What it says of itself"), observed.element,
    h("h3", {}, "Its actor: messages a second, ", rate), spark.element, actor.element,
    h("h3", {}, "Its life in memory"), life.element);
  dialog.replaceChildren(h("header", {}, h("div", {}, title, h("p", { class: "id" }, `${kind} ${id}`)), close), told, body);

  const rates = [];
  let before = null;
  return (answer) => {
    const { actor: row, life: lived } = answer;
    const at = performance.now();
    if (before) rates.push(Math.max(0, (row.messages - before.messages) / ((at - before.at) / 1000)));
    before = { messages: row.messages, at };
    rates.splice(0, rates.length - SAMPLES_MAX);
    say(title, row.title ?? id);
    say(rate, format(rates.at(-1), "per_second"));
    spark.show(rates, "per_second");
    actor.show([
      ["Node", shortened(row.node)],
      ["State", row.state],
      ["Mailbox", format(row.mailbox_depth, "count")],
      ["Requests under way", format(row.permits_in_use, "count")],
      ["Messages", format(row.messages, "count")],
      ["On average", micros(row.handling_mean_us)],
      ["Half within", micros(row.handling_p50_us)],
      ["99 % within", micros(row.handling_p99_us)],
      ["Restarts", format(row.restarts, "count")],
      ["Up", format(row.uptime_seconds, "seconds")],
    ]);
    say(told, lived ? "" : row.state === "quarantined" ? "Quarantined: it is read again only after a restart." : "It is being read.");
    if (lived) {
      observed.show(Object.entries(lived.observed).map(([name, value]) => [words(name), plain(name, value)]));
      life.show([
        ["Epoch of its shard", format(lived.epoch, "count")],
        ["Activation", format(lived.activation, "count")],
        ["Last decision", format(lived.seq, "count")],
        ["Not stored yet", format(lived.seq - lived.stored_seq, "count")],
        ["Replies waiting", format(lived.parked_replies, "count")],
        ["Last asked", ago(lived.used_at)],
        ["Next deadline", lived.next_deadline ? ago(lived.next_deadline) : "none"],
      ]);
    }
    body.hidden = false;
  };
}

async function follow(mine, kind, id, show) {
  while (mine === turn && dialog.open) {
    try {
      const answer = await get(`/admin/actors/${encodeURIComponent(kind)}/${encodeURIComponent(id)}`);
      if (mine === turn) show(answer);
    } catch (error) {
      if (mine !== turn) return;
      const absent = error instanceof Refused && error.status === 404;
      say(dialog.querySelector("[role=status]"), absent ? "It is not in memory now." : `No answer: ${error.message}`);
    }
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

export function openDrill(kind, id) {
  const mine = ++turn;
  const show = shown(kind, id);
  if (!dialog.open) dialog.showModal();
  history.replaceState(null, "", `#${kind}/${id}`);
  follow(mine, kind, id, show);
}

dialog.addEventListener("close", () => {
  turn += 1;
  history.replaceState(null, "", location.pathname);
});

// A link to one opens it.
export function openFromAddress() {
  const [kind, id] = location.hash.slice(1).split("/");
  if (kind && id) openDrill(kind, id);
}

export function closeDrill() {
  if (dialog.open) dialog.close();
}
