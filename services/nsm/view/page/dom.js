// Makes elements. Texts of the mesh become text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `el("td.name", {title: "…"}, "text", other)`; a function among the properties listens to that event. */
export function el(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  return filled(document.createElement(tag || "div"), classes, properties, children);
}

/** The same for SVG. */
export function svg(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  return filled(document.createElementNS(SVG, tag), classes, properties, children);
}

function filled(element, classes, properties, children) {
  element.classList.add(...classes);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** A dot and a word for a state. */
export function state(value) {
  return el("span.state", { class: `state ${value.toLowerCase()}` }, value);
}

/** How long ago a time was, in the unit that fits. */
export function ago(time, now = Date.now()) {
  if (!time) return "";
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${seconds} s`;
}

/** A time of today as hours and minutes, another one with its day. */
export function clock(time) {
  if (!time) return "";
  const at = new Date(time);
  const day = at.toDateString() === new Date().toDateString() ? "" : `${at.toLocaleDateString()} `;
  return day + at.toLocaleTimeString();
}

/** A number of bytes, or of bits per second, in the unit that fits. */
export function amount(number, unit) {
  for (const [size, prefix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (number >= size) return `${(number / size).toFixed(number >= 10 * size ? 0 : 1)} ${prefix}${unit}`;
  }
  return `${Math.round(number)} ${unit}`;
}
