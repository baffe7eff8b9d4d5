// The operators' page: signs in, asks one node each second, and shows it.

import { Refused, get, isSignedIn, signIn, signOut } from "./api.js";
import { all } from "./all.js";
import { cluster } from "./cluster.js";
import { h, say } from "./draw.js";
import { closeDrill, openFromAddress } from "./drill.js";
import { clock, shortened } from "./format.js";
import { attention, build } from "./panels.js";
import { Samples } from "./series.js";

const EVERY_MS = 1000;
const AFTER_FAILURE_MS = 3000;
const CLUSTER_EVERY_MS = 2000;
const THEME = "onsale.ops.theme";

const at = (id) => document.getElementById(id);

// ---- light and dark

const theme = at("theme");
theme.value = localStorage.getItem(THEME) ?? "auto";
const dress = () => { document.documentElement.dataset.theme = theme.value; };
theme.addEventListener("change", () => {
  localStorage.setItem(THEME, theme.value);
  dress();
});
dress();

// ---- what is shown

const nodes = cluster();
const panels = build(at("panels"), { cluster: nodes.element, all: all().element });

let samples = new Samples();
let node = null;
let paused = false;
// Counts sessions and choices of a node: a loop of an earlier one ends.
let turn = 0;

function showLive(state, text) {
  at("live").dataset.state = state;
  say(at("live-text"), text);
  at("dashboard").classList.toggle("stale", state === "lost");
}

function showNodes(names, mine) {
  const choice = at("node");
  at("node-choice").hidden = names.length < 2;
  if ([...choice.options].map((option) => option.value).join() !== names.join()) {
    choice.replaceChildren(...names.map((name) => h("option", { value: name }, shortened(name))));
  }
  if (choice.value !== mine) choice.value = mine;
}

function showAttention(context) {
  const found = attention(context);
  const text = found.map((one) => one.text).join("\n");
  const place = at("attention");
  // Touched only if it says something else: it is read out.
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  place.replaceChildren(...found.map((one) => h("p", { class: one.bad ? "notice bad" : "notice" }, one.text)));
}

async function step() {
  const of = node === null ? "" : `&node=${encodeURIComponent(node)}`;
  const answer = await get(`/admin/ops?since=${samples.last}${of}`);
  samples.add(answer);
  showNodes(answer.nodes, answer.node);
  const context = { answer, samples };
  for (const one of panels) one.update(context);
  showAttention(context);
  at("panels").dataset.samples = samples.last;
  showLive("live", `${shortened(answer.node)} · ${clock(answer.at)}`);
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function follow(mine) {
  while (mine === turn) {
    if (paused || document.hidden) {
      await pause(200);
      continue;
    }
    try {
      await step();
      await pause(EVERY_MS);
    } catch (error) {
      if (mine !== turn) return;
      if (error instanceof Refused && [401, 403].includes(error.status)) return leave("Your session has ended.");
      showLive("lost", `no answer: ${error.message}`);
      await pause(AFTER_FAILURE_MS);
    }
  }
}

async function followCluster(mine) {
  while (mine === turn) {
    if (!paused && !document.hidden) {
      // The figures tell it if nothing answers any more.
      await get("/admin/cluster").then((seen) => nodes.update(seen)).catch(() => {});
    }
    await pause(CLUSTER_EVERY_MS);
  }
}

function begin() {
  const mine = ++turn;
  samples = new Samples();
  for (const [id, hidden] of [["sign-in", true], ["dashboard", false], ["live", false], ["controls", false]]) at(id).hidden = hidden;
  showLive("", "connecting …");
  follow(mine);
  followCluster(mine);
}

function leave(why = "") {
  turn += 1;
  node = null;
  closeDrill();
  for (const [id, hidden] of [["sign-in", false], ["dashboard", true], ["live", true], ["controls", true]]) at(id).hidden = hidden;
  say(at("sign-in-error"), why);
  at("email").focus();
}

// ---- what can be done

at("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button");
  button.disabled = true;
  say(at("sign-in-error"), "");
  try {
    await signIn(form.email.value, form.password.value);
    form.reset();
    begin();
    at("main").focus();
    openFromAddress();
  } catch (error) {
    say(at("sign-in-error"), error.message);
  }
  button.disabled = false;
});

at("sign-out").addEventListener("click", async () => {
  leave();
  await signOut();
});

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  if (paused) showLive("", "paused");
});

at("node").addEventListener("change", () => {
  node = at("node").value;
  begin();
});

if (isSignedIn()) {
  begin();
  openFromAddress();
} else {
  leave();
}
