// Nodes with their workloads, and the wires between them: coloured by state, thick by traffic.

import cytoscape from "./vendor/cytoscape.mjs";
import { el } from "./dom.js";

const MOST_WIRES = 1500;
const WORST = ["UP", "UNHEARD", "PENDING", "HEALING", "DOWN"];
const STEP = { x: 150, y: 46, node: 90, domain: 120 };

export class Topology {
  constructor(choose, open) {
    this.note = el("p.note");
    this.canvas = el("div.graph", { role: "img", "aria-label": "Nodes and wires; the tab Wires lists the same" });
    this.element = el("div.topology", {}, this.canvas, this.note);
    this.choose = choose;
    this.open = open;
    this.drawn = "";
  }

  show(mesh, wires, chosen) {
    const isWhole = wires.length <= MOST_WIRES;
    mesh.providers = new Set([...mesh.endpoints.values()].map(({ name }) => name));
    const edges = isWhole ? wires.map((wire) => edgeOf(mesh, wire)) : together(mesh, wires);
    const shape = placed(mesh, wires, isWhole);
    this.note.textContent = isWhole ? "" : `${wires.length} wires: those between two nodes are drawn as one. Search, or choose a state, to see each.`;
    this.graph ??= this.make();
    const drawn = JSON.stringify([shape.map(({ data }) => data.id), edges.map(({ data }) => [data.id, data.source, data.target])]);
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      this.graph.json({ elements: { nodes: shape, edges } });
      this.graph.layout({ name: "preset", fit: true, padding: 24 }).run();
    } else {
      this.graph.batch(() => [...shape, ...edges].forEach(({ data }) => this.graph.getElementById(data.id).data(data)));
    }
    this.graph.edges().unselect();
    if (chosen) this.graph.getElementById(`wire ${chosen}`).select();
  }

  make() {
    const graph = cytoscape({ container: this.canvas, style: style(), minZoom: 0.05, maxZoom: 3, wheelSensitivity: 0.3, boxSelectionEnabled: false, autoungrabify: true });
    graph.on("tap", "edge", (event) => (event.target.data("wire") ? this.choose(event.target.data("wire")) : this.open(event.target.data("search"))));
    graph.on("tap", "node", (event) => this.open(event.target.data("search")));
    return graph;
  }

  /** Colours are the style sheet's: read again when they have changed. */
  restyle() {
    this.graph?.style(style());
  }
}

function style() {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const text = { label: "data(label)", color: colour("text"), "font-size": 12, "font-family": "system-ui, sans-serif" };
  return [
    { selector: "node", style: { ...text, shape: "round-rectangle", width: 118, height: 28, "text-valign": "center", "text-halign": "center", "text-max-width": 108, "text-wrap": "ellipsis", "background-color": colour("card"), "border-width": 1, "border-color": colour("line") } },
    { selector: "node[kind = 'endpoint']", style: { "background-color": colour("endpoint") } },
    { selector: "node:parent", style: { "background-color": colour("back"), "text-valign": "top", "font-weight": 600, padding: 14, "border-style": "solid" } },
    { selector: "node[kind = 'domain']", style: { "border-style": "dashed", "background-opacity": 0.4 } },
    { selector: "node[state = 'UNHEARD']", style: { "border-color": colour("unheard"), "border-width": 3 } },
    { selector: "edge", style: { width: "data(width)", "curve-style": "bezier", "control-point-step-size": 26, "line-color": colour("up"), "target-arrow-shape": "none", "font-size": 10, color: colour("text") } },
    { selector: "edge[?isFar]", style: { "curve-style": "unbundled-bezier", "control-point-distances": [34], "control-point-weights": [0.5], "edge-distances": "node-position" } },
    { selector: "edge[label]", style: { label: "data(label)", "text-background-color": colour("back"), "text-background-opacity": 0.8 } },
    ...["DOWN", "HEALING", "UNHEARD", "PENDING"].map((each) => ({ selector: `edge[state = '${each}']`, style: { "line-color": colour(each.toLowerCase()), "line-style": each === "UNHEARD" || each === "PENDING" ? "dashed" : "solid" } })),
    { selector: "edge:selected", style: { "underlay-color": colour("accent"), "underlay-opacity": 0.35, "underlay-padding": 5 } },
  ];
}

const client = (mesh, wire) => (mesh.providers.has(wire.client) ? `endpoint ${wire.client}` : `client ${wire.node ?? ""} ${wire.client}`);
const endpoint = (wire) => (wire.endpoint ? `endpoint ${wire.endpoint.split("@")[0]}` : `service ${wire.service}`);
const width = (rate) => 1.6 + Math.min(8, Math.log10(1 + rate / 1000));

function edgeOf(mesh, wire) {
  return { data: { id: `wire ${wire.id}`, wire: wire.id, source: client(mesh, wire), target: endpoint(wire), state: wire.state, width: width(mesh.rate(wire.id)), isFar: wire.node !== (wire.endpoint_node ?? wire.node) } };
}

function together(mesh, wires) {
  const found = new Map();
  for (const wire of wires) {
    const ends = [`node ${wire.node ?? ""}`, `node ${wire.endpoint_node ?? wire.node ?? ""}`];
    const id = ends.join(" to ");
    const edge = found.get(id) ?? { data: { id, source: ends[0], target: ends[1], state: "UP", rate: 0, count: 0, bad: 0, search: wire.node ?? "" } };
    found.set(id, edge);
    edge.data.count += 1;
    edge.data.bad += wire.state === "UP" ? 0 : 1;
    edge.data.rate += mesh.rate(wire.id);
    if (WORST.indexOf(wire.state) > WORST.indexOf(edge.data.state)) edge.data.state = wire.state;
  }
  for (const { data } of found.values()) {
    data.width = width(data.rate) + Math.log10(data.count);
    data.label = data.bad ? `${data.bad} of ${data.count} not up` : `${data.count}`;
  }
  return [...found.values()];
}

// Nodes stand beside each other, domains below each other; in a node, clients are on the left and endpoints on the right.
function placed(mesh, wires, isWhole) {
  const nodes = new Map();
  const at = (name) => {
    if (!nodes.has(name)) nodes.set(name, { clients: new Map(), endpoints: new Map(), domain: "", state: "" });
    return nodes.get(name);
  };
  for (const node of mesh.nodes.values()) Object.assign(at(node.name), { domain: node.domain ?? "", state: node.state });
  for (const wire of wires) {
    const here = at(wire.node ?? "");
    here.domain ||= wire.client_domain ?? "";
    if (isWhole) {
      if (!mesh.providers.has(wire.client)) here.clients.set(client(mesh, wire), wire.client);
      const there = wire.endpoint ? at(wire.endpoint_node ?? wire.node ?? "") : here;
      there.endpoints.set(endpoint(wire), wire.endpoint?.split("@")[0] || wire.service);
    } else if (wire.endpoint_node) at(wire.endpoint_node);
  }
  if (isWhole) {
    for (const each of mesh.endpoints.values()) if (each.node && nodes.has(each.node)) at(each.node).endpoints.set(`endpoint ${each.name}`, each.name);
  }
  const domains = Map.groupBy ? Map.groupBy([...nodes], ([, node]) => node.domain) : grouped([...nodes], ([, node]) => node.domain);
  const several = domains.size > 1;
  const elements = [];
  let y = 0;
  for (const [domain, members] of [...domains].sort()) {
    if (several) elements.push({ data: { id: `domain ${domain}`, label: domain || "no domain", kind: "domain", search: domain } });
    const across = Math.max(1, Math.ceil(Math.sqrt(members.length)));
    let x = 0;
    let height = 0;
    for (const [place, [name, node]] of members.sort().entries()) {
      if (place % across === 0 && place) {
        x = 0;
        y += height + STEP.node;
        height = 0;
      }
      const parent = name && (node.clients.size || node.endpoints.size) ? `node ${name}` : undefined;
      const outer = several ? `domain ${domain}` : undefined;
      const rows = Math.max(node.clients.size, node.endpoints.size, 1);
      if (name) elements.push({ data: { id: `node ${name}`, label: name, kind: "node", state: node.state, parent: outer, search: name }, ...(parent ? {} : { position: { x: x + STEP.x / 2, y } }) });
      else if (!isWhole) elements.push({ data: { id: "node ", label: "unknown node", kind: "node", parent: outer, search: "" }, position: { x: x + STEP.x / 2, y } });
      const column = (kind, found, left) => {
        for (const [line, [id, label]] of [...found].sort().entries()) {
          elements.push({ data: { id, label, kind, parent: parent ?? outer, search: label }, position: { x: left, y: y + line * STEP.y } });
        }
      };
      column("client", node.clients, x);
      column("endpoint", node.endpoints, x + STEP.x + 40);
      height = Math.max(height, rows * STEP.y);
      x += 2 * STEP.x + STEP.node + 40;
    }
    y += height + STEP.domain;
  }
  return elements;
}

function grouped(items, key) {
  const found = new Map();
  for (const item of items) found.set(key(item), [...(found.get(key(item)) ?? []), item]);
  return found;
}

