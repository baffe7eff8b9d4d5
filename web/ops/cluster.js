// The nodes, and which of them owns which shard in which epoch.

import { format, shortened } from "./format.js";
import { Rows, h, panel, plainRow, say, scrolled, table } from "./draw.js";

const COLUMNS = 64;
const CELL = 8;
// Told apart in light and dark, and by most who don't see all colours.
const COLOURS = ["#3b7dd8", "#d98c1f", "#3f9b6c", "#a65fb5", "#c8553d", "#5fa8b8", "#8c8f2f", "#7a6ad8"];
const NOBODYS = "#8885";

export const colourOf = (index) => COLOURS[index % COLOURS.length];

export function cluster() {
  const { element: of, body } = table("The nodes of the cluster", ["Node", "State", "Left of its lease", "Shards", "Starts"]);
  const rows = new Rows(body, (first) => {
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.setProperty("--swatch", colourOf(first.index));
    const name = h("span", { title: first.node_id }, swatch, shortened(first.node_id));
    return plainRow((node) => {
      const left = node.lease_left_ms;
      return [
        name,
        [node.state, node.state === "up" ? "" : "warn"],
        left === null ? "none: alone" : [format(left / 1000, "seconds"), left < 500 ? "warn" : ""],
        format(node.shards, "count"),
        format(node.incarnation, "count"),
      ];
    });
  });
  const map = h("canvas", { id: "shards", role: "img", width: COLUMNS * CELL });
  const told = h("p", { class: "note" });
  let shards = null;
  let names = [];

  const summary = () => {
    if (!shards) return;
    const { epoch_min: lowest, epoch_max: highest, unowned, total } = shards;
    const epochs = lowest === highest ? `epoch ${lowest}` : `epochs ${lowest} to ${highest}`;
    say(told, `${total} shards, ${epochs}${unowned > 0 ? `; ${unowned} without an owner` : ""}.`);
  };
  map.addEventListener("pointermove", (event) => {
    if (!shards) return;
    const size = map.clientWidth / COLUMNS;
    const shard = Math.floor(event.offsetY / size) * COLUMNS + Math.floor(event.offsetX / size);
    if (shard < 0 || shard >= shards.total) return;
    say(told, `Shard ${shard}: ${names[shards.owners[shard]] ?? "nobody's"}, epoch ${shards.epochs[shard] ?? "–"}.`);
  });
  map.addEventListener("pointerleave", summary);

  return {
    element: panel("Cluster", {}, scrolled("The nodes of the cluster", of), h("h3", {}, "Shards by their owners"), map, told),
    update(seen) {
      shards = seen.shards;
      names = seen.nodes.map((node) => node.node_id);
      rows.show(seen.nodes.map((node, index) => ({ ...node, index })), (node) => `${node.index}/${node.node_id}/${node.incarnation}`);
      map.height = Math.ceil(shards.total / COLUMNS) * CELL;
      map.setAttribute("aria-label", seen.nodes.map((node) => `${node.node_id} owns ${node.shards} shards`).join(", "));
      const pen = map.getContext("2d");
      shards.owners.forEach((owner, shard) => {
        pen.fillStyle = owner === null ? NOBODYS : colourOf(owner);
        pen.fillRect((shard % COLUMNS) * CELL, Math.floor(shard / COLUMNS) * CELL, CELL - 1, CELL - 1);
      });
      summary();
    },
  };
}
