// The list of performances, read from the public API of this very server.
// Everything is put in as text, never as HTML.

const list = document.getElementById("performances");
const status = document.getElementById("status");
const more = document.getElementById("more");
const search = document.getElementById("search");

const STATUS_NAMES = { scheduled: "soon", on_sale: "on sale", sold_out: "sold out", closed: "closed" };

let cursor = null;
// Counts searches, so that a late answer to an old one is dropped.
let turn = 0;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function when(text) {
  return text ? new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "";
}

function price(amount, currency) {
  if (amount === null || amount === undefined) return "";
  // Amounts are in minor units; how many make a unit depends on the currency.
  const format = new Intl.NumberFormat([], { style: "currency", currency });
  return "from " + format.format(amount / 10 ** format.resolvedOptions().maximumFractionDigits);
}

function card(item) {
  const made = element("li", undefined, "card");
  made.append(element("h2", item.title));
  made.append(element("span", STATUS_NAMES[item.status] ?? item.status, `badge ${item.status}`));
  if (item.cast?.length) made.append(element("p", item.cast.join(", ")));
  const dates = [when(item.first_starts_at), when(item.last_starts_at)].filter((text, at, all) => text && all.indexOf(text) === at);
  made.append(element("p", [item.venue_name, dates.join(" – ")].filter(Boolean).join(" · ")));
  if (item.status === "scheduled") made.append(element("p", `Sale opens ${when(item.opens_at)}`));
  made.append(element("p", price(item.price_from, item.currency), "price"));
  return made;
}

async function load(next) {
  const mine = ++turn;
  if (!next) {
    cursor = null;
    list.replaceChildren();
  }
  status.textContent = "Loading …";
  more.hidden = true;
  const parameters = new URLSearchParams({ limit: "20" });
  const query = new FormData(search).get("query").trim();
  if (query) parameters.set("query", query);
  if (cursor) parameters.set("cursor", cursor);
  try {
    const response = await fetch(`/api/v1/performances?${parameters}`);
    const body = await response.json();
    if (mine !== turn) return;
    if (!response.ok) throw new Error(body.title);
    list.append(...body.items.map(card));
    cursor = body.next_cursor;
    more.hidden = cursor === null;
    status.textContent = list.childElementCount ? "" : "No performances.";
  } catch (error) {
    if (mine === turn) status.textContent = `The performances can't be shown: ${error.message}`;
  }
}

search.addEventListener("submit", (event) => {
  event.preventDefault();
  load(false);
});
more.addEventListener("click", () => load(true));
load(false);
