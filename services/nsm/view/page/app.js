// The page of a view: what is shown is in the address, so that it can be linked to.

import { el } from "./dom.js";
import { components, events, services } from "./lists.js";
import { Mesh, everyWire, nameOf } from "./mesh.js";
import { panelOf } from "./panel.js";
import { Topology } from "./topology.js";
import { WireTable } from "./wires.js";

const TABS = ["wires", "topology", "services", "components", "events"];
const STATES = ["UP", "DOWN", "HEALING", "UNHEARD", "PENDING"];
const WORST_FIRST = ["DOWN", "HEALING", "PENDING", "UNHEARD", "UP"];
const SOON = 250;

const $ = (id) => document.getElementById(id);
const mesh = new Mesh();
const shown = { tab: "wires", wire: "", text: "", states: new Set() };
const fetched = { wire: "", events: undefined, counts: undefined };
const table = new WireTable(choose);
const topology = new Topology(choose, search);

// --- the address: #TAB/WIRE?q=TEXT&state=DOWN,HEALING

function read() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  const [tab, wire = ""] = path.split("/");
  const words = new URLSearchParams(query);
  shown.tab = TABS.includes(tab) ? tab : "wires";
  shown.wire = decoded(wire);
  shown.text = words.get("q") ?? "";
  shown.states = new Set((words.get("state") ?? "").split(",").filter((each) => STATES.includes(each)));
  $("search").value = shown.text;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function write() {
  const words = new URLSearchParams();
  if (shown.text) words.set("q", shown.text);
  if (shown.states.size) words.set("state", [...shown.states].join(","));
  const wire = shown.wire ? `/${encodeURIComponent(shown.wire)}` : "";
  history.replaceState(null, "", `#${shown.tab}${wire}${words.size ? `?${words}` : ""}`);
  draw();
}

function choose(id) {
  shown.wire = id;
  if (shown.tab !== "topology") shown.tab = "wires";
  write();
  table.reveal(id);
}

function search(text) {
  shown.text = text ?? "";
  $("search").value = shown.text;
  if (shown.tab !== "topology") shown.tab = "wires";
  write();
}

// --- drawing

function chosenWires() {
  const text = shown.text.toLowerCase();
  const fits = (wire) => (!shown.states.size || shown.states.has(wire.state)) && (!text || haystack(wire).includes(text));
  const order = (wire) => WORST_FIRST.indexOf(wire.state);
  const compare = (a, b) => order(a) - order(b) || (nameOf(a) < nameOf(b) ? -1 : 1);
  return everyWire(mesh).filter(fits).sort(compare);
}

function haystack(wire) {
  const labels = Object.entries(wire.labels ?? {}).map(([key, value]) => `${key}=${value}`);
  const parts = [nameOf(wire), wire.id, wire.service, wire.domain, wire.endpoint, wire.node, wire.endpoint_node, ...(wire.way ?? []), ...(wire.client_addresses ?? []), ...(wire.endpoint_addresses ?? []), ...labels, wire.cause?.sentence];
  return parts.filter(Boolean).join(" ").toLowerCase();
}

function draw() {
  const all = everyWire(mesh);
  const wires = chosenWires();
  $("tabs").replaceChildren(...TABS.map((tab, place) => el("a", { href: `#${tab}`, "aria-current": tab === shown.tab ? "page" : null, title: `${place + 1}`, click: (event) => { event.preventDefault(); shown.tab = tab; write(); } }, tab[0].toUpperCase() + tab.slice(1))));
  const numbers = new Map(STATES.map((each) => [each, all.filter((wire) => wire.state === each).length]));
  const isShown = (each) => numbers.get(each) || shown.states.has(each) || each === "UP" || each === "DOWN";
  $("states").replaceChildren(...STATES.filter(isShown).map((each) => chip(each, numbers.get(each))));
  $("notice").hidden = mesh.isHeard;
  $("notice").textContent = "The view does not respond. What is below may have changed since.";
  document.body.classList.toggle("unheard", !mesh.isHeard);
  const bad = all.filter((wire) => wire.state !== "UP").length;
  document.title = bad ? `(${bad}) Network Service Mesh` : "Network Service Mesh";
  const text = shown.text.toLowerCase();
  const parts = { wires: () => table.element, topology: () => topology.element, services: () => services(mesh, text, search), components: () => components(mesh, text), events: () => events(mesh, text, choose) };
  const content = parts[shown.tab]();
  if ($("content").firstChild !== content) {
    const scrolled = $("content").firstChild?.scrollTop ?? 0;
    const isSame = $("content").dataset.tab === shown.tab;
    $("content").replaceChildren(content);
    if (isSame) content.scrollTop = scrolled;
  }
  $("content").dataset.tab = shown.tab;
  if (shown.tab === "wires") table.show(wires, shown.wire);
  if (shown.tab === "topology") topology.show(mesh, wires, shown.wire);
  drawPanel(all);
}

function chip(name, number) {
  const isOn = shown.states.has(name);
  const toggle = () => {
    if (!shown.states.delete(name)) shown.states.add(name);
    write();
  };
  return el("button.chip", { type: "button", class: `chip ${name.toLowerCase()}`, "aria-pressed": isOn, disabled: !number && !isOn, click: toggle }, `${number} ${name.toLowerCase()}`);
}

function drawPanel(all) {
  const wire = all.find((each) => each.id === shown.wire);
  $("panel").hidden = !shown.wire;
  if (!shown.wire) return;
  if (!wire) {
    $("panel").replaceChildren(el("p.empty", {}, mesh.isHeard ? `There is no wire ${shown.wire} (any more).` : "Waiting for the view."));
    return;
  }
  refetch(wire);
  const known = fetched.wire === wire.id ? fetched : {};
  const scrolled = $("panel").scrollTop;
  $("panel").replaceChildren(...panelOf(wire, { events: known.events, counts: known.counts, close }));
  $("panel").scrollTop = scrolled;
}

function close() {
  shown.wire = "";
  write();
}

/** Fetch what the stream does not have, again when the wire has changed. */
function refetch(wire) {
  const version = `${wire.id} ${wire.state} ${wire.since} ${wire.traffic?.at}`;
  if (fetched.version === version) return;
  if (fetched.wire !== wire.id) Object.assign(fetched, { wire: wire.id, events: undefined, counts: undefined });
  fetched.version = version;
  clearTimeout(fetched.timer);
  fetched.timer = setTimeout(async () => {
    const id = encodeURIComponent(wire.id);
    const [past, counts] = await Promise.all([ask(`/api/v1/events?wire=${id}&limit=50`), ask(`/api/v1/traffic?wire=${id}`)]);
    if (fetched.wire === wire.id) {
      Object.assign(fetched, { events: past, counts });
      draw();
    }
  }, fetched.events ? SOON : 0);
}

async function ask(path) {
  try {
    const answer = await fetch(path);
    return answer.ok ? await answer.json() : undefined;
  } catch {
    return undefined;
  }
}

// --- keys and buttons

function step(by) {
  const wires = chosenWires();
  const place = wires.findIndex((wire) => wire.id === shown.wire);
  const next = wires[Math.min(wires.length - 1, Math.max(0, place + by))];
  if (next) choose(next.id);
}

const KEYS = {
  "/": () => $("search").focus(),
  j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
  Enter: () => $("panel").querySelector("button")?.focus(),
  d: () => { shown.states = shown.states.size ? new Set() : new Set(STATES.filter((each) => each !== "UP")); write(); },
  t: () => theme(), "?": () => $("keys").showModal(),
  ...Object.fromEntries(TABS.map((tab, place) => [String(place + 1), () => { shown.tab = tab; write(); }])),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("keys").open) {
    if (document.activeElement === $("search")) $("search").blur();
    else close();
    return;
  }
  const isTyping = event.target.closest?.("input, dialog");
  const isButton = event.target.closest?.("button, a") && event.key === "Enter";
  if (isTyping || isButton || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

function theme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  topology.restyle();
}

document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "";
$("theme").addEventListener("click", theme);
$("help").addEventListener("click", () => $("keys").showModal());
$("keys").addEventListener("click", () => $("keys").close());
$("search").addEventListener("input", (event) => { shown.text = event.target.value; write(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => topology.restyle());
addEventListener("hashchange", () => { read(); draw(); });
mesh.addEventListener("change", draw);
setInterval(draw, 5000);
read();
draw();
mesh.follow();
