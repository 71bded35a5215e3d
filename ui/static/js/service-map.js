const SVG = "http://www.w3.org/2000/svg";
const CARD = { width: 190, height: 52 };
const SPACING = {
  "elk.layered.spacing.nodeNodeBetweenLayers": "150", // room for the words on an arrow
  "elk.spacing.nodeNode": "26",
};
const WORKER = "static/vendor/elkjs-0.12.1/elk-worker.min.js";

// Cards and arrows. The server says what is on the map; ELK, in a worker, says where. Positions are worked out again
// only when a card or an arrow comes or goes, so numbers change without anything moving.
export class ServiceMap extends HTMLElement {
  #elk = new ELK({ workerUrl: new URL(WORKER, document.baseURI).href });
  #svg = null;
  #empty = null;
  #shape = "";
  #places = null;
  #map = null;
  #busy = false;

  connectedCallback() {
    this.#svg = this.querySelector("svg");
    this.#empty = this.querySelector(".empty");
  }

  async show(map) {
    this.#map = map;
    this.#empty.hidden = map.cards.length > 0;
    if (map.cards.length === 0) this.#empty.textContent = "No flows in the last minute.";
    const shape = JSON.stringify([map.cards.map((card) => card.id), map.edges.map((edge) => [edge.source, edge.target])]);
    if (shape === this.#shape) return this.#draw();
    if (this.#busy) return undefined; // the next update is at most a second away
    this.#busy = true;
    try {
      this.#places = await this.#layout(map);
      this.#shape = shape;
    } finally {
      this.#busy = false;
    }
    return this.#draw();
  }

  async #layout(map) {
    const islands = new Map();
    for (const card of map.cards) {
      if (!islands.has(card.group)) islands.set(card.group, []);
      islands.get(card.group).push({ id: card.id, ...CARD });
    }
    const graph = {
      id: "root",
      layoutOptions: {
        "elk.algorithm": "layered",
        "elk.direction": "RIGHT",
        "elk.hierarchyHandling": "INCLUDE_CHILDREN",
        ...SPACING,
        "elk.layered.considerModelOrder.strategy": "NODES_AND_EDGES",
      },
      children: [...islands].map(([name, children]) => ({
        id: `island:${name}`,
        name,
        children,
        layoutOptions: { ...SPACING, "elk.padding": "[top=34,left=16,bottom=16,right=16]" },
      })),
      edges: map.edges
        .filter((edge) => edge.source !== edge.target)
        .map((edge) => ({ id: edge.id, sources: [edge.source], targets: [edge.target] })),
    };
    const done = await this.#elk.layout(graph);
    const cards = new Map();
    for (const island of done.children) {
      for (const card of island.children) cards.set(card.id, { x: island.x + card.x, y: island.y + card.y });
    }
    return { width: done.width, height: done.height, islands: done.children, cards };
  }

  #draw() {
    if (!this.#places) return;
    const { width, height, islands, cards } = this.#places;
    this.#svg.setAttribute("viewBox", `-12 -12 ${width + 24} ${height + 24}`);
    const known = (id) => cards.has(id);
    this.#svg.replaceChildren(
      ...islands.map((island) => this.#island(island)),
      ...this.#map.edges.filter((edge) => known(edge.source) && known(edge.target)).map((edge) => this.#edge(edge, cards)),
      ...this.#map.cards.filter((card) => known(card.id)).map((card) => this.#card(card, cards.get(card.id))),
    );
  }

  #island(island) {
    const group = element("g", { class: "island" });
    group.append(
      element("rect", { x: island.x, y: island.y, width: island.width, height: island.height, rx: 12 }),
      text(island.name, { x: island.x + 16, y: island.y + 22 }),
    );
    return group;
  }

  #card(card, at) {
    const group = element("g", { class: "card", "data-card": card.id });
    group.append(
      element("rect", { x: at.x, y: at.y, ...CARD, rx: 8 }),
      text(shorten(card.name, 24), { class: "name", x: at.x + 12, y: at.y + 22 }),
      text(shorten(card.ports.join("  "), 30), { class: "ports", x: at.x + 12, y: at.y + 40 }),
      title(card.title),
    );
    return group;
  }

  #edge(edge, cards) {
    const from = cards.get(edge.source);
    const to = cards.get(edge.target);
    const group = element("g", { class: "edge", "data-verdict": edge.verdict, "data-edge": edge.id, "data-idle": edge.idle });
    const line = curve(from, to);
    const width = Math.min(1.2 + Math.log2(1 + edge.per_second) * 0.7, 7);
    const head = element("path", { class: "head", d: line.head });
    group.append(
      element("path", { d: line.path, "stroke-width": width }),
      head,
      text(edge.label, { x: line.middle.x, y: line.middle.y - 5 }),
      title(edge.title),
    );
    return group;
  }
}

function curve(from, to) {
  const backwards = to.x < from.x + CARD.width;
  const start = { x: from.x + CARD.width, y: from.y + CARD.height / 2 };
  const end = { x: to.x, y: to.y + CARD.height / 2 };
  const tip = { x: end.x - 7, y: end.y };
  const bend = backwards ? 90 : Math.max((end.x - start.x) / 2, 30);
  const lift = backwards ? CARD.height * 1.3 : 0;
  const path = `M ${start.x} ${start.y} C ${start.x + bend} ${start.y + lift}, ${tip.x - bend} ${tip.y + lift}, ${tip.x} ${tip.y}`;
  const middle = {
    x: (start.x + 3 * (start.x + bend) + 3 * (tip.x - bend) + tip.x) / 8,
    y: (start.y + 3 * (start.y + lift) + 3 * (tip.y + lift) + tip.y) / 8,
  };
  return { path, middle, head: `M ${end.x} ${end.y} l -9 -5 v 10 z` };
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function text(words, attributes) {
  const made = element("text", attributes);
  made.textContent = words;
  return made;
}

function title(words) {
  const made = element("title", {});
  made.textContent = words;
  return made;
}

const shorten = (words, most) => (words.length > most ? `${words.slice(0, most - 1)}…` : words);
