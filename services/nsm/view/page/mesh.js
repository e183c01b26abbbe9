// What the view sees, kept up to date by its stream of changes.

const PLURALS = { wire: "wires", attempt: "attempts", service: "services", endpoint: "endpoints", component: "components", node: "nodes", domain: "domains" };
const MOST_EVENTS = 2000;

/** NAME or NAME@DOMAIN, as the stream names what is gone. */
export function subjectOf(kind, value) {
  if (kind === "wire" || kind === "attempt") return value.id;
  return value.domain ? `${value.name}@${value.domain}` : value.name;
}

export class Mesh extends EventTarget {
  constructor() {
    super();
    for (const plural of Object.values(PLURALS)) this[plural] = new Map();
    this.events = [];
    this.isHeard = false;
    this.traffic = new Map();
  }

  /** Follow the stream; "change" is dispatched at most once a frame. */
  follow() {
    const source = new EventSource("/api/v1/stream");
    const kinds = ["snapshot", "event", ...Object.keys(PLURALS).flatMap((kind) => [kind, `${kind}-gone`])];
    for (const kind of kinds) source.addEventListener(kind, (event) => this.learn(JSON.parse(event.data)));
    source.addEventListener("open", () => this.heard(true));
    source.addEventListener("error", () => this.heard(false));
  }

  heard(isHeard) {
    if (this.isHeard !== isHeard) {
      this.isHeard = isHeard;
      this.changed();
    }
  }

  learn(change) {
    this.heard(true);
    const kind = change.kind.replace(/-gone$/, "");
    if (kind === "snapshot") this.replace(change.snapshot);
    else if (kind === "event") this.events = [...this.events.slice(1 - MOST_EVENTS), change.event];
    else if (change.kind.endsWith("-gone")) this[PLURALS[kind]].delete(change.subject);
    else this.put(kind, change[kind]);
    this.changed();
  }

  replace(snapshot) {
    for (const [kind, plural] of Object.entries(PLURALS)) {
      this[plural] = new Map((snapshot[plural] ?? []).map((value) => [subjectOf(kind, value), value]));
    }
    this.events = snapshot.events ?? [];
    for (const wire of this.wires.values()) this.count(wire);
  }

  put(kind, value) {
    this[PLURALS[kind]].set(subjectOf(kind, value), value);
    if (kind === "wire") this.count(value);
  }

  /** Bits per second in each direction, from the latest two counts of a wire. */
  count(wire) {
    const at = Date.parse(wire.traffic?.at ?? "");
    if (Number.isNaN(at)) return;
    const now = { at, up: wire.traffic.to_endpoint?.bytes ?? 0, down: wire.traffic.to_client?.bytes ?? 0 };
    const former = this.traffic.get(wire.id);
    if (!former || now.up < former.up || now.down < former.down) this.traffic.set(wire.id, { ...now, rate: 0 });
    else if (now.at > former.at) {
      const rate = (8000 * (now.up - former.up + now.down - former.down)) / (now.at - former.at);
      this.traffic.set(wire.id, { ...now, rate });
    }
  }

  rate(id) {
    return this.traffic.get(id)?.rate ?? 0;
  }

  changed() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.dispatchEvent(new Event("change"));
    });
  }
}

/** Wires that exist, and those that were requested and do not. */
export function everyWire(mesh) {
  const pending = [...mesh.attempts.values()]
    .filter((attempt) => !mesh.wires.has(attempt.id))
    .map((attempt) => ({ ...attempt, state: "PENDING", since: attempt.first, attempt }));
  return [...mesh.wires.values(), ...pending];
}

export const nameOf = (wire) => (wire.interface ? `${wire.client}/${wire.interface}` : wire.client);
