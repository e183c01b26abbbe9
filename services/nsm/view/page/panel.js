// Everything about one wire: cause, path, set-up, traffic, events.

import { ago, amount, clock, el, state, svg } from "./dom.js";
import { nameOf } from "./mesh.js";

/** The panel of a wire; `events` and `counts` were fetched for it and may be missing still. */
export function panelOf(wire, { events, counts, close }) {
  const head = el("div.title", {},
    el("h2", {}, nameOf(wire)),
    el("button.close", { type: "button", title: "Close (Esc)", "aria-label": "Close", click: close }, "×"),
  );
  const facts = [
    ["Service", wire.domain ? `${wire.service}@${wire.domain}` : wire.service],
    ["Endpoint", wire.endpoint],
    ["Nodes", [...new Set([wire.node, wire.endpoint_node])].filter(Boolean).join(" → ")],
    ["Way", (wire.way ?? []).join(", ")],
    ["Client's addresses", (wire.client_addresses ?? []).join(", ")],
    ["Endpoint's addresses", (wire.endpoint_addresses ?? []).join(", ")],
    ["Routes", (wire.routes ?? []).join(", ")],
    ["MTU", wire.mtu],
    ["Payload", wire.payload],
    ["Labels", Object.entries(wire.labels ?? {}).map(([key, value]) => `${key}=${value}`).join(", ")],
    ["Last packet", wire.last_packet ? `${ago(wire.last_packet)} ago` : ""],
    ["Manager last responded", wire.heard ? `${ago(wire.heard)} ago` : ""],
    ["Connection", wire.id],
  ];
  return [
    head,
    el("p.now", {}, state(wire.state), wire.since ? ` for ${ago(wire.since)}` : ""),
    causeOf(wire.cause),
    wire.attempt ? triedFor(wire.attempt) : null,
    el("dl.facts", {}, facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])),
    pathOf(wire),
    setUpOf(wire),
    trafficOf(counts),
    eventsOf(events),
  ].filter(Boolean);
}

function causeOf(cause) {
  if (!cause) return null;
  const where = [cause.component, cause.element].filter(Boolean).join(", element ");
  return el("div.cause", { role: "alert" },
    el("p", {}, cause.sentence),
    cause.remedy ? el("p.remedy", {}, `What to do: ${cause.remedy}`) : null,
    el("p.where", {}, [where, cause.code, clock(cause.at)].filter(Boolean).join(" · ")),
  );
}

function triedFor(attempt) {
  const rows = (attempt.candidates ?? []).map((each) => el("tr", {}, el("td", {}, each.endpoint), el("td", {}, String(each.tries)), el("td", {}, each.sentence ?? ""), el("td", {}, ago(each.at))));
  return el("section", {},
    el("h3", {}, `Tried ${attempt.tries} times in ${ago(attempt.first)}`),
    rows.length ? el("table", {}, el("tr", {}, ["Candidate", "Tries", "Last answer", "Ago"].map((name) => el("th", {}, name))), rows) : null,
  );
}

function pathOf(wire) {
  const path = wire.path ?? [];
  if (!path.length) return null;
  const places = [
    path.findIndex((hop) => hop.cause),
    path.findIndex((hop) => wire.cause?.component && hop.name === wire.cause.component),
    path.findIndex((hop) => ["DOWN", "HEALING", "UNHEARD"].includes(hop.state)),
  ];
  const worst = places.find((place) => place >= 0) ?? -1;
  const items = path.map((hop, place) =>
    el("li", { class: `hop ${hop.state.toLowerCase()}${place === worst ? " first" : ""}`, "data-hop": hop.name },
      el("div.name", {}, hop.name, el("span.kind", {}, [hop.kind, hop.node, hop.domain].filter(Boolean).join(", "))),
      state(hop.state),
      el("div.detail", {}, [hop.mechanism, hop.interface, hop.expires ? `token until ${clock(hop.expires)}` : ""].filter(Boolean).join(" · ")),
      hop.cause || place === worst ? el("div.why", {}, (hop.cause ?? wire.cause)?.sentence) : null,
    ));
  return el("section", {}, el("h3", {}, "Path"), el("ol.path", {}, items));
}

/** Each hop's own part of the set-up, from the outermost to the innermost. */
function setUpOf(wire) {
  const hops = (wire.path ?? []).filter((hop) => typeof hop.elapsed_ms === "number");
  if (!hops.length) return null;
  const whole = Math.max(hops[0].elapsed_ms, 0.001);
  const rows = hops.map((hop, place) => {
    const own = Math.max(0, hop.elapsed_ms - (hops[place + 1]?.elapsed_ms ?? 0));
    const left = 100 * (1 - hop.elapsed_ms / whole);
    const bar = el("span.bar", { title: `${hop.elapsed_ms.toFixed(1)} ms with all behind it` });
    bar.style.left = `${Math.min(99, Math.max(0, left))}%`;
    bar.style.width = `${Math.max(1, (100 * hop.elapsed_ms) / whole)}%`;
    return el("div.step", {}, el("span.label", {}, hop.name), el("span.track", {}, bar), el("span.number", {}, `${own.toFixed(1)} ms`));
  });
  return el("section", {}, el("h3", {}, `Set-up: ${whole.toFixed(1)} ms`), el("div.waterfall", {}, rows));
}

function trafficOf(counts) {
  const rates = (counts ?? []).slice(1).map((now, place) => {
    const before = counts[place];
    const seconds = (Date.parse(now.at) - Date.parse(before.at)) / 1000;
    const rate = (name) => Math.max(0, (8 * ((now[name] ?? 0) - (before[name] ?? 0))) / Math.max(seconds, 0.001));
    return { at: Date.parse(now.at), up: rate("to_endpoint"), down: rate("to_client") };
  });
  if (!rates.length) return null;
  const [width, height] = [320, 70];
  const most = Math.max(1, ...rates.flatMap(({ up, down }) => [up, down]));
  const end = Date.now();
  const begin = Math.min(rates[0].at, end - 60_000);
  const line = (name) => rates.map((each) => `${((width * (each.at - begin)) / (end - begin)).toFixed(1)},${(height - (height * each[name]) / most).toFixed(1)}`).join(" ");
  const latest = rates[rates.length - 1];
  return el("section", {},
    el("h3", {}, `Traffic since ${clock(begin)}`),
    svg("svg.traffic", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Up to ${amount(most, "bit/s")}` },
      svg("polyline.up", { points: line("up") }), svg("polyline.down", { points: line("down") })),
    el("p.legend", {}, el("span.up", {}, `to the endpoint ${amount(latest.up, "bit/s")}`), el("span.down", {}, `to the client ${amount(latest.down, "bit/s")}`), `, at most ${amount(most, "bit/s")}`),
  );
}

function eventsOf(events) {
  if (!events?.length) return null;
  const items = [...events].reverse().slice(0, 50).map((event) => el("li", {}, el("time", { datetime: event.at }, clock(event.at)), " ", event.sentence));
  return el("section", {}, el("h3", {}, "Events"), el("ol.events", {}, items));
}
