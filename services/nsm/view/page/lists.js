// Services, components and events.

import { ago, clock, el, state } from "./dom.js";

const words = (labels) => Object.entries(labels ?? {}).map(([key, value]) => `${key}=${value}`).join(", ");
const fits = (text, item) => !text || JSON.stringify(item).toLowerCase().includes(text);
const table = (name, head, rows) =>
  el("div.scroll", {}, el("table.list", { "aria-label": name }, el("thead", {}, el("tr", {}, head.map((each) => el("th", { scope: "col" }, each)))), el("tbody", {}, rows.length ? rows : el("tr", {}, el("td.empty", { colspan: head.length }, "Nothing fits.")))));

/** Services with their matches, their endpoints, and how many clients each endpoint has. */
export function services(mesh, text, open) {
  const items = [...mesh.services.values()].filter((service) => fits(text, service)).map((service) => {
    const providers = (service.endpoints ?? []).map((name) => [...mesh.endpoints.values()].find((each) => each.name === name) ?? { name });
    const matches = (service.matches ?? []).map((match) => el("li", {},
      el("span.selector", {}, words(match.selector) || "every other client"), " → ",
      (match.routes ?? []).map((route) => `${words(route.selector) || "any endpoint"}${route.weight ? ` (weight ${route.weight})` : ""}`).join("; ") || "any endpoint",
      match.fallthrough ? ", else the next match" : "",
    ));
    return el("article.card", {},
      el("h2", {}, service.domain ? `${service.name}@${service.domain}` : service.name),
      el("p", {}, `${service.payload || "IP"} · `, el("a", { href: "#", click: (event) => { event.preventDefault(); open(service.name); } }, `${service.wires ?? 0} wires`), service.down ? el("strong.bad", {}, `, ${service.down} not up`) : ""),
      matches.length ? el("ul.matches", {}, matches) : null,
      el("table", {}, el("tr", {}, ["Endpoint", "Node", "Labels", "Wires"].map((name) => el("th", {}, name))),
        providers.map((each) => el("tr", {}, el("td", {}, each.name), el("td", {}, each.node ?? ""), el("td", {}, words(each.labels?.[service.name])), el("td", {}, String(each.wires ?? 0))))),
    );
  });
  return el("div.scroll.cards", {}, items.length ? items : el("p.empty", {}, "No service fits."));
}

export function components(mesh, text) {
  const rows = [...mesh.components.values()].filter((each) => fits(text, each)).map((each) => el("tr", {},
    el("td", {}, state(each.state)), el("td", {}, each.name), el("td", {}, each.kind), el("td", {}, [each.node, each.domain].filter(Boolean).join(", ")),
    el("td", {}, each.cause?.sentence ?? (each.state === "UNHEARD" && each.heard ? `has not responded for ${ago(each.heard)}` : "")), el("td", {}, each.version ?? ""), el("td", {}, each.url ?? "")));
  return table("Components", ["State", "Name", "Kind", "Node", "", "Version", "Address"], rows);
}

export function events(mesh, text, choose) {
  const rows = [...mesh.events].reverse().filter((each) => fits(text, each)).slice(0, 500).map((each) => el("tr", {},
    el("td", {}, el("time", { datetime: each.at }, clock(each.at))), el("td", {}, el("span", { class: `kind ${each.kind}` }, each.kind)),
    el("td", {}, mesh.wires.has(each.wire) ? el("a", { href: `#wires/${encodeURIComponent(each.wire)}`, click: (event) => { event.preventDefault(); choose(each.wire); } }, each.sentence) : each.sentence)));
  return table("Events", ["Time", "Kind", "What occurred"], rows);
}
