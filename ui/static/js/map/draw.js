// Drawing a card, an arrow, an island. Each is made once and then only told what changed.
import { shorten, svg } from "../dom.js";
import { milliseconds, percent, rate } from "../numbers.js";
import { markOf } from "../verdicts.js";
import { iconPath } from "./icons.js";
import { CARD, LABEL } from "./sizes.js";

const CORNER = 8;
const CHIPS = 3;
const PADLOCK = "M-3.4-.6v-1.5a3.4 3.4 0 0 1 6.8 0v1.5M-4.6-.6h9.2v6h-9.2z";

export class CardShape {
  constructor(card) {
    this.title = svg("title");
    this.name = svg("text", { class: "name", x: 36, y: 23 });
    this.farName = svg("text", { class: "far-name" });
    this.sub = svg("text", { class: "sub", x: 12, y: 42 });
    this.chips = svg("g", { class: "chips" });
    this.icon = svg("path", { class: "icon", transform: "translate(11 10)" });
    this.pin = svg("path", { class: "pin", d: "M0 0h8v8l-4-3-4 3z", transform: `translate(${CARD.width - 20} 0)` });
    this.group = svg("g", { class: "card", tabindex: "0", role: "button", "data-card": card.id }, this.title,
      svg("rect", { class: "face", ...CARD, rx: 9 }), this.icon, this.name, this.farName, this.sub, this.chips, this.pin);
  }

  show(card) {
    this.card = card;
    this.group.dataset.kind = card.kind;
    this.group.dataset.change = card.change ?? "";
    this.icon.setAttribute("d", iconPath(card.icon));
    this.name.textContent = shorten(card.name, 19);
    this.#showFarName(card.name);
    const told = card.kind === "island" ? `${card.members ?? ""} workloads, closed` : card.labels.join("  ") || card.kind;
    this.sub.textContent = shorten(told, 25);
    const lines = [card.name, card.kind, ...card.labels, ...card.ports.map(portWords)];
    this.title.textContent = lines.filter(Boolean).join("\n");
    this.group.setAttribute("aria-label", `${card.kind} ${card.name}, ports ${card.ports.map(portWords).join(", ") || "none"}`);
    const chips = card.ports.slice(0, CHIPS).map(portWords);
    const more = card.ports.length - CHIPS + card.more;
    if (more > 0) chips.push(`+${more}`);
    if (this.chipWords === chips.join()) return;
    this.chipWords = chips.join();
    let x = 12;
    this.chips.replaceChildren(...chips.flatMap((words) => {
      const width = words.length * 6 + 10;
      if (x + width > CARD.width - 6) return [];
      const at = x;
      x += width + 5;
      return [svg("rect", { x: at, y: 52, width, height: 17, rx: 4 }), text(words, { x: at + width / 2, y: 64 })];
    }));
  }

  // From afar a name fills its card, in two lines if need be: a bold letter is about 0.7 times as wide as it is high.
  #showFarName(name) {
    if (this.farWords === name) return;
    this.farWords = name;
    const lines = twoLines(name);
    const fits = (CARD.width - 16) / 0.7 / Math.max(...lines.map((line) => line.length));
    this.farName.style.setProperty("--far-size", `${Math.min(20, fits).toFixed(1)}px`);
    this.farName.style.setProperty("--overview-size", `${Math.min(30, fits).toFixed(1)}px`);
    const [first, step] = lines.length === 1 ? [1.35, 0] : [1.1, 1.05];
    this.farName.replaceChildren(...lines.map((words, index) => {
      const line = svg("tspan", { x: 10, dy: `${index ? step : first}em` });
      line.textContent = words;
      return line;
    }));
  }

  move([x, y], pinned) {
    this.group.setAttribute("transform", `translate(${x} ${y})`);
    this.group.classList.toggle("pinned", pinned);
  }
}

export class EdgeShape {
  constructor(edge) {
    this.title = svg("title");
    this.hit = svg("path", { class: "hit" });
    this.line = svg("path", { class: "line" });
    this.head = svg("path", { class: "head" });
    this.first = text("", { y: -3 });
    this.second = text("", { y: 11, class: "second" });
    this.plate = svg("rect", { class: "plate", rx: 5 });
    this.lock = svg("path", { class: "lock", d: PADLOCK });
    this.back = svg("rect", { class: "back", y: -11, height: 22, rx: 4 });
    this.brief = text("", { class: "brief", y: 6 });
    this.label = svg("g", { class: "label" }, this.plate, this.first, this.second, this.lock, this.back, this.brief);
    this.group = svg("g", { class: "edge", tabindex: "0", role: "button", "data-edge": edge.id }, this.title, this.hit, this.line, this.head, this.label);
  }

  show(edge) {
    this.edge = edge;
    const { dataset } = this.group;
    dataset.verdict = edge.verdict;
    dataset.idle = edge.idle;
    dataset.change = edge.change ?? "";
    this.line.setAttribute("stroke-width", Math.min(1.4 + Math.log2(1 + edge.rate) * 0.55, 6).toFixed(1));
    const words = edgeWords(edge);
    this.first.textContent = words.first;
    this.second.textContent = words.second;
    this.brief.textContent = words.brief;
    const far = words.brief.length * 11 + 6;
    this.back.setAttribute("x", -far / 2);
    this.back.setAttribute("width", far);
    this.group.setAttribute("aria-label", words.whole);
    this.title.textContent = words.whole;
    const locked = edge.encrypted || edge.authenticated;
    const height = words.second ? LABEL.height - 2 : 18;
    this.first.setAttribute("y", words.second ? -3 : 4);
    const width = Math.min(Math.max(words.first.length, words.second.length) * 6.1 + (locked ? 26 : 12), LABEL.width + 34);
    for (const [key, value] of Object.entries({ x: -width / 2, y: words.second ? -16 : -9, width, height })) this.plate.setAttribute(key, value);
    for (const line of [this.first, this.second]) line.setAttribute("x", locked ? -8 : 0);
    this.lock.setAttribute("transform", `translate(${width / 2 - 11} ${words.second ? -7 : -2})`);
    this.lock.style.display = locked ? "" : "none";
  }

  move(route) {
    if (this.route === route) return;
    this.route = route;
    const { path, head } = rounded(route.points);
    this.hit.setAttribute("d", path);
    this.line.setAttribute("d", path);
    this.head.setAttribute("d", head);
    const [x, y] = route.label ?? route.points[Math.floor(route.points.length / 2)];
    this.label.setAttribute("transform", `translate(${x} ${y})`);
  }
}

export class IslandShape {
  constructor(island, toggle) {
    this.box = svg("rect", { class: "box", rx: 14 });
    this.name = svg("text", { class: "name" });
    this.group = svg("g", { class: "island", "data-island": island.id, tabindex: "0", role: "button" },
      svg("title", {}, "Close this island"), this.box, this.name);
    this.group.addEventListener("dblclick", () => toggle(island.id));
    this.name.addEventListener("click", () => toggle(island.id));
    this.group.addEventListener("keydown", (event) => event.key === "Enter" && toggle(island.id));
  }

  show(island, box) {
    this.name.textContent = `▾ ${shorten(island.name, Math.max(Math.floor((box.right - box.left) / 12) - 3, 6))} ${island.cards}`;
    this.group.setAttribute("aria-label", `${island.kind} ${island.name}, ${island.cards} cards; Enter closes it`);
    this.group.dataset.kind = island.kind;
    for (const [key, value] of Object.entries({ x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top })) {
      this.box.setAttribute(key, value);
    }
    this.name.setAttribute("x", box.left + 14);
    this.name.setAttribute("y", box.top + 25);
  }
}

export const portWords = ({ port, l4, l7 }) => (l7 ? `${port} ${l7}` : `${port} ${l4}`);

// Two short lines for the map, and everything for the tooltip and the screen reader.
export function edgeWords(edge) {
  const spoken = edge.ports[0]?.port ? portWords(edge.ports[0]) : edge.ports[0]?.l4 ?? "";
  const more = edge.ports.length > 1 ? ` +${edge.ports.length - 1}` : "";
  const notes = [];
  if (edge.drop) notes.push(`${markOf("DROPPED")} ${percent(edge.drop)} dropped`);
  if (edge.bad) notes.push(`${percent(edge.bad)} err`);
  if (edge.p99) notes.push(edge.drop || edge.bad ? `p99 ${milliseconds(edge.p99)}` : `${milliseconds(edge.p50)} / ${milliseconds(edge.p99)}`);
  const flows = edge.change === "gone" ? "gone" : rate(edge.rate);
  const change = { new: "new: ", changed: `${rate(edge.before?.rate ?? 0)} → ` }[edge.change] ?? "";
  const ports = edge.ports.map((port) => `${portWords(port)}: ${rate(port.rate)}${port.drop ? `, ${percent(port.drop)} dropped` : ""}`);
  const latency = edge.p99 ? [`latency p50 ${milliseconds(edge.p50)}, p99 ${milliseconds(edge.p99)}`] : [];
  const whole = [`${edge.source} → ${edge.target}: ${rate(edge.rate)} flows, ${edge.verdict.toLowerCase()}`, ...ports, ...latency,
    ...(edge.bad ? [`${percent(edge.bad)} of answers are errors`] : []), ...(edge.encrypted ? ["encrypted"] : []), ...(edge.authenticated ? ["authenticated"] : [])].join("\n");
  const brief = edge.change === "gone" ? "gone" : edge.drop ? `✕ ${percent(edge.drop)}` : `${change.replace(": ", " ").replace("/s", "")}${flows}`;
  return { brief, first: shorten(`${spoken}${more} · ${change}${flows}`, 24), second: shorten(notes.slice(0, 2).join(" · "), 24), whole };
}

// A long name in two lines, broken where it has a joint, else in the middle.
function twoLines(name) {
  const words = shorten(name, 26);
  if (words.length <= 10) return [words];
  const joints = [...words.matchAll(/[-._/ ]/g)].map(({ index }) => index + 1);
  const worst = (at) => Math.max(at, words.length - at);
  const middle = Math.ceil(words.length / 2);
  const at = joints.reduce((best, one) => (worst(one) < worst(best) ? one : best), words.length);
  if (worst(at) <= Math.max(11, middle + 3)) return [words.slice(0, at), words.slice(at)];
  return words.length <= 12 ? [words] : [`${words.slice(0, middle)}-`, words.slice(middle)];
}

function text(words, attributes) {
  const made = svg("text", attributes);
  made.textContent = words;
  return made;
}

// A line with round corners that ends in a head.
function rounded(points) {
  const last = points.at(-1);
  const before = points.at(-2) ?? last;
  const angle = Math.atan2(last[1] - before[1], last[0] - before[0]);
  const stop = [last[0] - 7 * Math.cos(angle), last[1] - 7 * Math.sin(angle)];
  const way = [...points.slice(0, -1), stop];
  let path = `M${way[0]}`;
  for (let index = 1; index < way.length - 1; index += 1) {
    const [from, corner, to] = way.slice(index - 1, index + 2);
    const radius = Math.min(CORNER, distance(from, corner) / 2, distance(corner, to) / 2);
    path += `L${toward(corner, from, radius)}Q${corner} ${toward(corner, to, radius)}`;
  }
  path += `L${stop}`;
  const wing = (turn) => [last[0] - 9 * Math.cos(angle + turn), last[1] - 9 * Math.sin(angle + turn)];
  return { path, head: `M${last}L${wing(0.5)}L${wing(-0.5)}z` };
}

const distance = ([ax, ay], [bx, by]) => Math.hypot(bx - ax, by - ay);
function toward(from, to, length) {
  const whole = distance(from, to) || 1;
  return [from[0] + ((to[0] - from[0]) * length) / whole, from[1] + ((to[1] - from[1]) * length) / whole].map((at) => +at.toFixed(1));
}
