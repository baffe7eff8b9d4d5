// What the page shows, and from which series each figure is taken.

import { format, micros, percent } from "./format.js";
import { Rows, Spark, bar, h, panel, plainRow, say, scrolled, table } from "./draw.js";
import { openDrill } from "./drill.js";

const KINDS = ["timetable", "queue", "account", "coupon"];
const TIERS = ["checkpoint", "database"];

// The figures that tell at a glance how it goes.
const TILES = [
  { label: "Requests", series: "http.requests", suffix: "/s" },
  { label: "99 % answered within", series: "http.p99", lately: true },
  { label: "Failures (5xx)", series: "http.server_errors", suffix: "/s", alarm: (value) => value > 0 },
  { label: "Holds", series: "holds.ok", suffix: "/s" },
  { label: "Orders", series: "orders.ok", suffix: "/s" },
  { label: "People waiting", series: "queues.waiting", absent: 0 },
  { label: "Not written yet", series: "dirty.bytes" },
  { label: "Processor", series: "process.cpu" },
];

// Figures with a line each. `second` is drawn fainter into the same line.
const FIGURES = [
  {
    title: "Traffic",
    rows: [
      { label: "Requests", series: "http.requests", suffix: "/s" },
      { label: "Refused (4xx)", series: "http.client_errors", suffix: "/s" },
      { label: "Failed (5xx)", series: "http.server_errors", suffix: "/s", alarm: (value) => value > 0 },
      { label: "Shed (no room)", series: "http.shed", suffix: "/s", alarm: (value) => value > 0 },
      { label: "Half within", series: "http.p50", lately: true },
      { label: "95 % within", series: "http.p95", lately: true },
      { label: "99 % within", series: "http.p99", second: "http.p50", lately: true },
      { label: "Sockets", series: "sockets", limit: "sockets.limit" },
    ],
  },
  {
    title: "Sale",
    seats: true,
    rows: [
      { label: "Holds made", series: "holds.ok", suffix: "/s", total: "holds.ok_total" },
      { label: "Holds refused", series: "holds.refused", suffix: "/s", total: "holds.refused_total" },
      { label: "Orders confirmed", series: "orders.ok", suffix: "/s", total: "orders.ok_total" },
      { label: "Orders refused", series: "orders.refused", suffix: "/s", total: "orders.refused_total" },
      { label: "Coupons claimed", series: "claims.ok", suffix: "/s", total: "claims.ok_total" },
      { label: "Claims refused", series: "claims.refused", suffix: "/s", total: "claims.refused_total" },
    ],
  },
  {
    title: "Waiting rooms",
    empty: "Nobody has waited on this node yet.",
    rows: [
      { label: "Waiting", series: "queues.waiting" },
      { label: "Inside", series: "queues.active" },
      { label: "Let in", series: "queues.admitted", suffix: "/s" },
      { label: "Left", series: "queues.left", suffix: "/s" },
      { label: "Timed out", series: "queues.expired", suffix: "/s" },
      { label: "Live sockets", series: "queues.sockets" },
    ],
  },
  {
    title: "Events",
    rows: [
      { label: "Not published yet", series: "outbox.events" },
      { label: "Oldest of them", series: "outbox.age", alarm: (value) => value > 30 },
      { label: "Behind a gap", series: "outbox.behind", alarm: (value) => value > 0 },
      { label: "Not read by consumers", series: "consumers.lag" },
      { label: "Read, waiting for an earlier one", series: "consumers.waiting" },
      { label: "Dead letters since start", series: "dead_letters.total", alarm: (value) => value > 0 },
    ],
  },
  {
    title: "Process",
    rows: [
      { label: "Processor", series: "process.cpu" },
      { label: "Memory", series: "process.memory" },
      { label: "Open files", series: "process.files", limit: "process.files_limit" },
      { label: "Threads", series: "process.threads" },
      { label: "Off the database's clock", series: "clock.uncertainty", alarm: (value) => value > 0.05 },
      { label: "Left of the lease", series: "lease.left", alarm: (value) => value < 0.5 },
    ],
  },
];

function figureText(samples, spec, value) {
  return format(value, samples.unit(spec.series)) + (value === null ? "" : (spec.suffix ?? ""));
}

function valueOf(samples, spec) {
  const value = spec.lately ? samples.lately(spec.series) : samples.now(spec.series);
  return value ?? spec.absent ?? null;
}

// An element that shows a figure; a test reads the exact value from it.
function showFigure(element, samples, spec) {
  const value = valueOf(samples, spec);
  say(element, figureText(samples, spec, value));
  element.dataset.series = spec.series;
  element.dataset.value = value ?? "";
  element.classList.toggle("bad", value !== null && Boolean(spec.alarm?.(value)));
}

function tiles() {
  const made = TILES.map((spec) => {
    const value = h("span", { class: "value" });
    const spark = new Spark();
    return { spec, value, spark, element: h("div", { class: "tile" }, h("dt", {}, spec.label), h("dd", {}, value, spark.element)) };
  });
  return {
    element: h("dl", { class: "tiles full", "aria-label": "At a glance" }, ...made.map((tile) => tile.element)),
    update({ samples }) {
      for (const { spec, value, spark } of made) {
        showFigure(value, samples, spec);
        spark.show(samples.values(spec.series), samples.unit(spec.series));
      }
    },
  };
}

function figureRow(spec) {
  const value = h("span", { class: "value" });
  const of = h("span", { class: "of" });
  const peak = h("td", { class: "of" });
  const spark = new Spark();
  const element = h("tr", {}, h("th", { scope: "row" }, spec.label), h("td", {}, value, " ", of), h("td", { class: "spark-cell" }, spark.element), peak);
  return {
    element,
    update(samples) {
      element.hidden = !samples.has(spec.series);
      if (element.hidden) return false;
      showFigure(value, samples, spec);
      const limit = spec.limit && samples.now(spec.limit);
      const total = spec.total && samples.now(spec.total);
      say(of, limit ? `of ${format(limit, "count")}` : total != null ? `${format(total, "count")} in all` : "");
      if (spec.total) Object.assign(of.dataset, { series: spec.total, value: total ?? "" });
      spark.show(samples.values(spec.series), samples.unit(spec.series), spec.second && samples.values(spec.second));
      say(peak, figureText(samples, spec, samples.peak(spec.series)));
      return true;
    },
  };
}

const SEATS = [["sold", "Sold"], ["held", "Held"], ["available", "Available"], ["blocked", "Off sale"]];

function seats() {
  const place = h("div");
  const values = Object.fromEntries(SEATS.map(([name]) => [name, h("dd")]));
  const legend = h("dl", { class: "legend" }, ...SEATS.map(([name, label]) => h("div", { class: name }, h("dt", {}, label), values[name])));
  return {
    element: h("div", {}, h("h3", {}, "Seats of all dates"), place, legend),
    update(samples) {
      const now = SEATS.map(([name]) => [name, samples.now(`seats.${name}`) ?? 0]);
      const whole = now.reduce((sum, [, value]) => sum + value, 0);
      place.replaceChildren(bar(now.filter(([name]) => name !== "available"), whole, "bar tall"));
      for (const [name] of SEATS) showFigure(values[name], samples, { series: `seats.${name}` });
    },
  };
}

function figures(group) {
  const { title, rows, empty } = group;
  const made = rows.map(figureRow);
  const { element: of, body } = table(title, ["", "Now", "15 minutes", "Peak"], "figures");
  body.append(...made.map((row) => row.element));
  const map = group.seats ? seats() : null;
  const nothing = empty ? h("p", { class: "note" }, empty) : null;
  const region = scrolled(title, of);
  return {
    element: panel(title, {}, nothing, region, map?.element),
    update({ samples }) {
      const shown = made.filter((row) => row.update(samples)).length;
      region.hidden = shown === 0;
      if (nothing) nothing.hidden = shown > 0;
      map?.update(samples);
    },
  };
}

function kinds() {
  const heads = ["Kind", "Actors", "Mailbox", "Messages/s", "Half within", "99 % within", "Under way", "Fullest", "Restarts", "15 minutes"];
  const { element: of, body } = table("Actors by kind", heads);
  const rows = KINDS.map((kind) => {
    const spark = new Spark();
    const name = (figure) => `actors.${kind}.${figure}`;
    const cells = ["live", "mailbox", "messages", "p50", "p99", "permits", "permits_fullest", "restarts_total"];
    const made = cells.map((figure) => [figure, h("td")]);
    const element = h("tr", {}, h("th", { scope: "row" }, `${kind}s`), ...made.map(([, cell]) => cell), h("td", { class: "spark-cell" }, spark.element));
    body.append(element);
    return (samples) => {
      element.hidden = !samples.has(name("live"));
      for (const [figure, cell] of made) {
        const lately = figure === "p50" || figure === "p99";
        const limit = samples.now(name("permits_limit"));
        const alarm = figure === "permits_fullest" ? (value) => limit > 0 && value > limit * 0.8 : undefined;
        showFigure(cell, samples, { series: name(figure), lately, alarm });
      }
      spark.show(samples.values(name("messages")), "per_second");
    };
  });
  return {
    element: panel("Actors by kind", {}, scrolled("Actors by kind", of)),
    update: ({ samples }) => rows.forEach((update) => update(samples)),
  };
}

function writes() {
  const heads = ["Tier", "Reply waits, half", "99 %", "Write takes, half", "99 %", "Rows a batch, half", "99 %", "Batches/s", "Failures"];
  const { element: of, body } = table("How long writing takes", heads);
  const figures = ["gate.%.p50", "gate.%.p99", "flush.%.p50", "flush.%.p99", "flush.%.rows_p50", "flush.%.rows_p99", "flush.%.batches", "flush.%.failures_total"];
  const rows = TIERS.map((tier) => {
    const made = figures.map((figure) => [figure.replace("%", tier), h("td")]);
    const element = h("tr", {}, h("th", { scope: "row" }, tier), ...made.map(([, cell]) => cell));
    body.append(element);
    return (samples) => {
      element.hidden = !samples.has(`flush.${tier}.batches`);
      for (const [series, cell] of made) showFigure(cell, samples, { series, lately: !series.endsWith("batches") });
    };
  });
  const lines = [
    { label: "Not written yet", series: "dirty.bytes" },
    { label: "Oldest of it", series: "dirty.age", alarm: (value) => value > 5 },
    { label: "Reply waits for the database, 99 %", series: "gate.database.p99", second: "gate.database.p50", lately: true },
    { label: "Write to the database, 99 %", series: "flush.database.p99", second: "flush.database.p50", lately: true },
    { label: "Rows a batch, 99 %", series: "flush.database.rows_p99", second: "flush.database.rows_p50", lately: true },
  ].map(figureRow);
  const { element: list, body: listed } = table("Writing", ["", "Now", "15 minutes", "Peak"], "figures");
  listed.append(...lines.map((row) => row.element));
  const room = h("div");
  const roomText = h("p", { class: "note" });
  return {
    element: panel("Durability", {}, scrolled("Durability by tier", of), scrolled("Durability", list), room, roomText),
    update({ samples }) {
      rows.forEach((update) => update(samples));
      lines.forEach((row) => row.update(samples));
      const [used, limit] = [samples.now("dirty.bytes") ?? 0, samples.now("dirty.limit") ?? 0];
      room.replaceChildren(bar([["used", used]], limit));
      say(roomText, limit > 0 ? `${percent(used / limit)} of the ${format(limit, "bytes")} that may wait before new work is refused.` : "");
    },
  };
}

function nameButton(kind, name, title) {
  const made = h("button", { type: "button", class: "link", title: name }, title ?? name);
  made.addEventListener("click", () => openDrill(kind, name));
  return made;
}

// The accounts of a shard have no page of their own.
function actorName(actor) {
  const isEntity = !actor.name.startsWith("shard-");
  return isEntity ? nameButton(actor.kind, actor.name, actor.title) : h("span", {}, actor.name);
}

export function actorRow(more) {
  return (first) => {
    const name = actorName(first);
    return plainRow((actor) => [
      name,
      [actor.kind, "left"],
      [actor.state, actor.state === "quarantined" ? "bad" : ""],
      format(actor.mailbox_depth, "count"),
      ...more(actor),
      micros(actor.handling_p50_us),
      micros(actor.handling_p99_us),
      [format(actor.restarts, "count"), actor.restarts > 0 ? "warn" : ""],
      format(actor.uptime_seconds, "seconds"),
    ]);
  };
}

function busiest() {
  const heads = ["Actor", ["Kind", "left"], "State", "Mailbox", "Messages/s", "Busy", "Half within", "99 % within", "Restarts", "Up"];
  const { element: of, body } = table("The busiest actors", heads);
  const rows = new Rows(body, actorRow((actor) => [format(actor.messages_per_second, "per_second"), percent(actor.busy_share)]));
  const nothing = h("p", { class: "note" }, "No actor has anything to do.");
  return {
    element: panel("Busiest actors", {}, scrolled("The busiest actors", of), nothing),
    update({ answer }) {
      rows.show(answer.actors, (actor) => `${actor.kind}/${actor.name}`);
      nothing.hidden = answer.actors.length > 0;
      of.hidden = answer.actors.length === 0;
    },
  };
}

function queues() {
  const { element: of, body } = table("Waiting rooms with the most people", ["Waiting room", "Waiting", "Inside", "Let in", "Per second", "State"]);
  const rows = new Rows(body, (first) => {
    const name = nameButton("queue", first.performance_id, first.title);
    return plainRow((queue) => [
      name,
      format(queue.waiting, "count"),
      format(queue.active, "count"),
      format(queue.admitted_total, "count"),
      format(queue.admission_per_second, "per_second"),
      queue.paused ? ["paused", "warn"] : queue.draining ? ["draining", "warn"] : "open",
    ]);
  });
  const nothing = h("p", { class: "note" }, "No waiting room is in memory here.");
  return {
    element: panel("Fullest waiting rooms", {}, scrolled("Waiting rooms with the most people", of), nothing),
    update({ answer }) {
      rows.show(answer.queues, (queue) => queue.performance_id);
      nothing.hidden = answer.queues.length > 0;
      of.hidden = answer.queues.length === 0;
    },
  };
}

function timetables() {
  const { element: of, body } = table("Dates with the most held seats", ["Date", "Seats", "Sold", "Held", "Available"]);
  const rows = new Rows(body, (first) => {
    const name = nameButton("timetable", first.timetable_id, first.title);
    const place = h("div");
    return plainRow((date) => {
      const whole = date.available + date.held + date.sold + date.blocked;
      place.replaceChildren(bar([["sold", date.sold], ["held", date.held], ["blocked", date.blocked]], whole));
      return [name, place, ...[date.sold, date.held, date.available].map((seats) => format(seats, "count"))];
    });
  });
  const nothing = h("p", { class: "note" }, "No date is in memory here.");
  return {
    element: panel("Fullest dates", {}, scrolled("Dates with the most held seats", of), nothing),
    update({ answer }) {
      rows.show(answer.timetables, (date) => date.timetable_id);
      nothing.hidden = answer.timetables.length > 0;
      of.hidden = answer.timetables.length === 0;
    },
  };
}

const STANDINGS = { scheduled: "not open yet", open: "open", sold_out: "sold out", over: "over" };

function coupons() {
  const { element: of, body } = table("Coupons that were claimed last", ["Coupon", "Stock", "Claimed", "Left", "State", "Sold out after"]);
  const rows = new Rows(body, (first) => {
    const name = nameButton("coupon", first.coupon_id, first.title);
    const place = h("div");
    return plainRow((coupon) => {
      place.replaceChildren(bar([["sold", coupon.claimed]], coupon.stock));
      return [
        name,
        place,
        format(coupon.claimed, "count"),
        format(coupon.remaining, "count"),
        STANDINGS[coupon.state],
        coupon.sold_out_after_seconds === null ? "–" : format(coupon.sold_out_after_seconds, "seconds"),
      ];
    });
  });
  const nothing = h("p", { class: "note" }, "No coupon is in memory here.");
  return {
    element: panel("Coupons claimed last", {}, scrolled("Coupons that were claimed last", of), nothing),
    update({ answer }) {
      rows.show(answer.coupons, (coupon) => coupon.coupon_id);
      nothing.hidden = answer.coupons.length > 0;
      of.hidden = answer.coupons.length === 0;
    },
  };
}

// What an operator should look at, the worst first.
export function attention({ answer, samples }) {
  const found = [];
  const bad = (text) => found.push({ text, bad: true });
  const warn = (text) => found.push({ text, bad: false });
  const sum = (figure) => KINDS.reduce((all, kind) => all + (samples.now(`actors.${kind}.${figure}`) ?? 0), 0);
  const now = (name) => samples.now(name) ?? 0;
  if (now("invariants.broken_total") > 0) bad(`An invariant was broken ${format(now("invariants.broken_total"), "count")} times since the start: run “onsale verify”.`);
  if (!answer.ready) bad(`Not ready: ${answer.reasons.join("; ")}.`);
  else if (answer.reasons.length > 0) warn(`Degraded: ${answer.reasons.join("; ")}.`);
  if (sum("quarantined") > 0) bad(`${format(sum("quarantined"), "count")} quarantined: read again only after a restart.`);
  const failures = TIERS.reduce((all, tier) => all + samples.growth(`flush.${tier}.failures_total`, 60), 0);
  if (failures > 0) bad(`Writes have failed ${format(failures, "count")} times within the last minute.`);
  if (now("dirty.limit") > 0 && now("dirty.bytes") > now("dirty.limit") / 2) warn("More than half of what may wait to be written does.");
  if (now("outbox.age") > 30) warn(`Events have waited to be published for ${format(now("outbox.age"), "seconds")}.`);
  if (now("dead_letters.total") > 0) warn(`${format(now("dead_letters.total"), "count")} dead letters since the start: see /api/v1/admin/dead-letters.`);
  const restarts = KINDS.reduce((all, kind) => all + samples.growth(`actors.${kind}.restarts_total`, 900), 0);
  if (restarts > 0) warn(`${format(restarts, "count")} restarts of actors within the last 15 minutes.`);
  return found;
}

// Puts all panels into `place`, between them those that are shown by others;
// gives what has to be updated.
export function build(place, { cluster, all }) {
  const of = Object.fromEntries(FIGURES.map((group) => [group.title, figures(group)]));
  const left = [kinds(), busiest(), timetables(), writes()];
  const right = [of.Events, of.Process, queues(), coupons()];
  const top = [tiles(), of.Traffic, of.Sale, of["Waiting rooms"]];
  const elements = (made) => made.map((one) => one.element);
  place.append(
    ...elements(top),
    h("div", { class: "column wide" }, ...elements(left)),
    h("div", { class: "column" }, ...elements(right), cluster),
    all,
  );
  return [...top, ...left, ...right];
}
