const SVG = "http://www.w3.org/2000/svg";
const CARD = { width: 190, height: 52 };
const LABEL = { width: 104, height: 14 };
const SPACING = {
  "elk.layered.spacing.nodeNodeBetweenLayers": "40",
  "elk.layered.spacing.edgeNodeBetweenLayers": "18",
  "elk.layered.spacing.edgeEdgeBetweenLayers": "12",
  "elk.spacing.nodeNode": "26",
  "elk.spacing.edgeNode": "18",
  "elk.spacing.edgeEdge": "12",
  "elk.spacing.edgeLabel": "3",
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
        "elk.edgeRouting": "ORTHOGONAL",
        "elk.json.edgeCoords": "ROOT",
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
        .map((edge) => ({
          id: edge.id,
          sources: [edge.source],
          targets: [edge.target],
          labels: [{ id: `label:${edge.id}`, text: " ", ...LABEL }],
        })),
    };
    const done = await this.#elk.layout(graph);
    const cards = new Map();
    for (const island of done.children) {
      for (const card of island.children) cards.set(card.id, { x: island.x + card.x, y: island.y + card.y });
    }
    const arrows = new Map(done.edges.map((edge) => [edge.id, { points: pointsOf(edge), label: edge.labels[0] }]));
    return { width: done.width, height: done.height, islands: done.children, cards, arrows };
  }

  #draw() {
    if (!this.#places) return;
    const { width, height, islands, cards, arrows } = this.#places;
    this.#svg.setAttribute("viewBox", `-12 -12 ${width + 24} ${height + 24}`);
    this.#svg.replaceChildren(
      ...islands.map((island) => this.#island(island)),
      ...this.#map.edges.filter((edge) => arrows.has(edge.id)).map((edge) => this.#edge(edge, arrows.get(edge.id))),
      ...this.#map.cards.filter((card) => cards.has(card.id)).map((card) => this.#card(card, cards.get(card.id))),
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

  #edge(edge, { points, label }) {
    const group = element("g", { class: "edge", "data-verdict": edge.verdict, "data-edge": edge.id, "data-idle": edge.idle });
    const width = Math.min(1.2 + Math.log2(1 + edge.per_second) * 0.7, 7);
    const end = points.at(-1);
    group.append(
      element("path", { d: rounded(points), "stroke-width": width }),
      element("path", { class: "head", d: arrowHead(points.at(-2), end) }),
      text(edge.label, { x: label.x + LABEL.width / 2, y: label.y + LABEL.height - 3 }),
      title(edge.title),
    );
    return group;
  }
}

const pointsOf = ({ sections: [section] }) => [section.startPoint, ...(section.bendPoints ?? []), section.endPoint];

// The line through the points with its corners cut round.
function rounded(points) {
  const steps = [`M ${points[0].x} ${points[0].y}`];
  for (let i = 1; i < points.length - 1; i++) {
    const before = towards(points[i], points[i - 1], 8);
    const after = towards(points[i], points[i + 1], 8);
    steps.push(`L ${before.x} ${before.y} Q ${points[i].x} ${points[i].y} ${after.x} ${after.y}`);
  }
  const last = towards(points.at(-1), points.at(-2), 6); // the head covers the rest
  steps.push(`L ${last.x} ${last.y}`);
  return steps.join(" ");
}

function towards(from, to, most) {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  const part = Math.min(most, length / 2) / length;
  return { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part };
}

function arrowHead(from, tip) {
  const angle = Math.atan2(tip.y - from.y, tip.x - from.x);
  const at = (turn) => `${tip.x - 10 * Math.cos(angle + turn)} ${tip.y - 10 * Math.sin(angle + turn)}`;
  return `M ${tip.x} ${tip.y} L ${at(0.5)} L ${at(-0.5)} z`;
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
