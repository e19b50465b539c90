// What both pages share: elements made of text only, questions to the server, numbers as people read them.

import "./theme.js";

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== ""));
  return node;
}

// Children are nodes or text, never HTML.
export const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

export class Refused extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
    this.lasting = status === 401 || status === 403 || status === 404;
  }
}

// Ask for JSON beside this page; the login cookie is all that goes along.
export async function ask(name, parameters) {
  let answer;
  try {
    answer = await fetch(`${name}?${new URLSearchParams(parameters)}`, { headers: { Accept: "application/json" } });
  } catch {
    throw new Refused("Airflow does not answer.", 0);
  }
  let content = {};
  try {
    content = await answer.json();
  } catch {
    // Something between the browser and Airflow answered.
  }
  if (answer.ok) return content;
  const sentence = content.problem ?? `Airflow answers with HTTP ${answer.status}.`;
  throw new Refused(answer.status === 401 ? `${sentence} Reload the page to log in again.` : sentence, answer.status);
}

// A link that leaves the tab: the frame's sandbox blocks plain links, the host page may open them.
export function link(text, url, { inside = false, ...attributes } = {}) {
  if (!/^https?:\/\//.test(url)) return el("span", attributes, text);
  const follow = (event) => {
    event.preventDefault();
    if (!inside) {
      window.parent.open(url, "_blank", "noopener");
      return;
    }
    const anchor = window.parent.document.createElement("a");
    anchor.href = url;
    anchor.click();
  };
  return el("a", { href: url, rel: "noopener noreferrer", ...attributes, onclick: follow }, text);
}

// The address of one of Airflow's own pages, wherever Airflow lives.
export function airflowUrl(...path) {
  const base = new URL("../../../", document.baseURI);
  return new URL(path.map(encodeURIComponent).join("/"), base).href;
}

export function number(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-4 || size >= 1e9) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}

export function bytes(size) {
  if (size === null) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; size >= 1000 && unit < units.length - 1; unit++) size /= 1000;
  return `${unit ? size.toPrecision(3) : size} ${units[unit]}`;
}

export function duration(milliseconds) {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// The time zone that the person chose in Airflow, which keeps it as JSON; else the browser's own.
function timeZone() {
  try {
    const zone = JSON.parse(localStorage.getItem("timezone")) ?? undefined;
    new Intl.DateTimeFormat("en", { timeZone: zone });
    return zone;
  } catch {
    return undefined;
  }
}

const clock = new Intl.DateTimeFormat("sv-SE", { timeZone: timeZone(), dateStyle: "short", timeStyle: "short" });

export const moment = (milliseconds) => clock.format(milliseconds);

export const badge = (status) => el("span", { class: "badge", "data-status": status.toLowerCase() }, status.toLowerCase());

export const notes = (lines) => lines.map((line) => el("p", { class: "note" }, line));
