// The list of all actors of all nodes, a page at a time, and the way to one.

import { get } from "./api.js";
import { Rows, h, scrolled, say, table } from "./draw.js";
import { format, shortened } from "./format.js";
import { openDrill } from "./drill.js";
import { actorRow } from "./panels.js";

const PAGE = 50;

function find() {
  const kind = h("select", { name: "kind" }, ...["timetable", "queue", "account", "coupon"].map((name) => h("option", {}, name)));
  const id = h("input", { name: "id", required: true, maxlength: "36", autocomplete: "off", spellcheck: "false", placeholder: "id" });
  const form = h("form", { id: "find" }, h("label", {}, "Kind", kind), h("label", { class: "grow" }, "Id of a timetable, a performance or a user", id), h("button", {}, "Look"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    openDrill(kind.value, id.value.trim());
  });
  return form;
}

export function all() {
  const heads = ["Actor", ["Kind", "left"], "State", "Mailbox", "Node", "Messages", "Half within", "99 % within", "Restarts", "Up"];
  const { element: of, body } = table("All actors", heads);
  const rows = new Rows(body, actorRow((actor) => [shortened(actor.node), format(actor.messages, "count")]));
  const told = h("p", { class: "note", role: "status" });
  const more = h("button", { type: "button" }, "More");
  let items = [];
  let cursor = null;

  async function load(first) {
    more.disabled = true;
    try {
      const page = await get(`/admin/actors?limit=${PAGE}${!first && cursor ? `&cursor=${cursor}` : ""}`);
      items = first ? page.items : [...items, ...page.items];
      cursor = page.next_cursor;
      rows.show(items, (actor) => `${actor.kind}/${actor.name}/${actor.node}`);
      const silent = page.unanswered.length > 0 ? ` Not answered by: ${page.unanswered.join(", ")}.` : "";
      say(told, `${items.length} actors${cursor ? " and more" : ""}.${silent}`);
    } catch (error) {
      say(told, `The list can't be shown: ${error.message}`);
    }
    more.disabled = false;
    more.hidden = cursor === null;
  }
  more.addEventListener("click", () => load(false));
  const element = h("details", { class: "panel full" }, h("summary", {}, h("h2", {}, "All actors of all nodes")), find(), told, scrolled("All actors", of), more);
  element.addEventListener("toggle", () => { if (element.open) load(true); });
  return { element, update() {} };
}
