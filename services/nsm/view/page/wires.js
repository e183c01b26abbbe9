// The table of wires. Only the rows in sight are elements, so that thousands of wires scroll well.

import { ago, el, state } from "./dom.js";
import { nameOf } from "./mesh.js";

const ROW = 34;
const BEYOND = 8;
const COLUMNS = [
  ["State", (wire) => state(wire.state)],
  ["Client", (wire) => nameOf(wire)],
  ["Service", (wire) => (wire.domain ? `${wire.service}@${wire.domain}` : wire.service)],
  ["Endpoint", (wire) => wire.endpoint ?? ""],
  ["Way", (wire) => (wire.way ?? []).join(", ")],
  ["Addresses", (wire) => (wire.client_addresses ?? []).join(" ")],
  ["Since", (wire) => ago(wire.since)],
  ["Last packet", (wire) => ago(wire.last_packet)],
];

export class WireTable {
  constructor(choose) {
    this.choose = choose;
    this.body = el("div.rows", { role: "rowgroup" });
    const head = el("div.row.head", { role: "row" }, COLUMNS.map(([name]) => el("div", { role: "columnheader" }, name)));
    this.view = el("div.scroll", { role: "presentation", scroll: () => this.draw() }, head, this.body);
    this.element = el("div.wires", { role: "table", "aria-label": "Wires" }, this.view);
    this.wires = [];
    new ResizeObserver(() => this.draw()).observe(this.view);
  }

  show(wires, chosen) {
    this.wires = wires;
    this.chosen = chosen;
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.view.scrollTop / ROW) - BEYOND);
    const last = Math.min(this.wires.length, first + Math.ceil(this.view.clientHeight / ROW) + 2 * BEYOND);
    this.body.style.height = `${this.wires.length * ROW}px`;
    this.element.setAttribute("aria-rowcount", this.wires.length);
    const rows = this.wires.slice(first, last).map((wire, place) => this.row(wire, first + place));
    this.body.replaceChildren(...rows);
    if (!this.wires.length) this.body.append(el("p.empty", {}, "No wire fits."));
  }

  row(wire, place) {
    const isChosen = wire.id === this.chosen;
    const why = wire.cause ? el("div.why", { title: wire.cause.sentence }, wire.cause.sentence) : null;
    const cells = COLUMNS.map(([name, read]) => {
      const shown = read(wire);
      const told = name === "Endpoint" && why ? why : shown;
      return el("div", { role: "cell", title: typeof shown === "string" ? shown : "" }, told);
    });
    const row = el("div.row", { role: "row", "aria-rowindex": place + 1, "aria-selected": isChosen, "data-id": wire.id, click: () => this.choose(wire.id) }, cells);
    row.style.top = `${place * ROW}px`;
    return row;
  }

  /** Bring a wire into sight. */
  reveal(id) {
    const place = this.wires.findIndex((wire) => wire.id === id);
    if (place < 0) return;
    const top = place * ROW;
    const room = this.view.clientHeight - ROW; // below the head
    if (top < this.view.scrollTop) this.view.scrollTop = top;
    else if (top + ROW > this.view.scrollTop + room) this.view.scrollTop = top + ROW - room;
  }
}
