// The whole layout: ELK, in a worker, says where cards stand, which way arrows go and where their words fit.
//
// In:  cards, arrows, islands. Out: {places: {card: [x, y]}, routes: {arrow: {points, label}}}.
// Where only a few things changed, place.js and route.js keep what stands.
import { CARD, LABEL, PADDING, SPACING } from "./sizes.js";

const WORKER = "static/vendor/elkjs-0.12.1/elk-worker.min.js";
// Beyond these a layered drawing takes seconds, and is a tangle.
const TOO_MANY_CARDS = 260;
const TOO_MANY_ARROWS = 220;
const FEW_CARDS = 80;

const LAYERED = {
  "elk.algorithm": "layered",
  "elk.hierarchyHandling": "INCLUDE_CHILDREN",
  "elk.edgeRouting": "ORTHOGONAL",
  "elk.json.edgeCoords": "ROOT",
  "elk.json.shapeCoords": "ROOT",
  "elk.layered.nodePlacement.strategy": "NETWORK_SIMPLEX",
  "elk.layered.thoroughness": "12",
  "elk.layered.spacing.nodeNodeBetweenLayers": "26",
  "elk.layered.spacing.edgeNodeBetweenLayers": "14",
  "elk.layered.spacing.edgeEdgeBetweenLayers": "10",
  "elk.spacing.edgeEdge": "12",
  "elk.spacing.edgeNode": "16",
  "elk.spacing.nodeNode": String(SPACING),
};
const INLINE = { "elk.edgeLabels.inline": "true" }; // the words interrupt the line they belong to
// Many cards: neatly packed in their islands. Arrows are then drawn straight, and only counted at this size.
const PACKED = {
  "elk.algorithm": "rectpacking", "elk.aspectRatio": "1.6",
  "elk.json.shapeCoords": "ROOT",
};

// Made at once: the worker reads its megabyte while the first flows are on their way.
const elk = new ELK({ workerUrl: new URL(WORKER, document.baseURI).href });

export async function arrange(cards, edges, islands, tall) {
  const arrows = edges.filter((edge) => edge.source !== edge.target);
  const many = cards.length > TOO_MANY_CARDS || arrows.length > TOO_MANY_ARROWS;
  const layered = { ...LAYERED, "elk.direction": tall ? "DOWN" : "RIGHT" };
  const packed = { ...PACKED, "elk.spacing.nodeNode": cards.length < FEW_CARDS ? "110" : "40" };
  const options = many ? packed : layered;
  const done = await elk.layout({
    id: "root",
    layoutOptions: options,
    children: grouped(cards, islands).map(([group, members]) => island(group, members, many ? null : layered)),
    edges: many ? [] : arrows.map((edge) => ({
      id: edge.id, sources: [edge.source], targets: [edge.target],
      labels: [{ id: `label:${edge.id}`, text: " ", width: LABEL.width, height: LABEL.height, layoutOptions: INLINE }],
    })),
  });
  const places = {};
  for (const child of done.children) {
    for (const card of child.id.startsWith("box:") ? child.children : [child]) places[card.id] = [round(card.x), round(card.y)];
  }
  const routes = {};
  for (const edge of done.edges ?? []) {
    const section = edge.sections?.[0];
    if (!section) continue;
    const points = [section.startPoint, ...(section.bendPoints ?? []), section.endPoint].map(pair);
    const label = edge.labels?.[0];
    routes[edge.id] = { points: points.slice(0, 60), label: label ? [round(label.x + LABEL.width / 2), round(label.y + LABEL.height / 2)] : null };
  }
  return { places, routes, pinned: [] };
}

function grouped(cards, islands) {
  const found = new Map();
  for (const card of cards) {
    const group = islands.get(card.group)?.closed ? card.id : card.group;
    if (!found.has(group)) found.set(group, []);
    found.get(group).push(card);
  }
  return [...found];
}

function island(group, members, layered) {
  const nodes = members.map((card) => ({ id: card.id, ...CARD }));
  if (nodes.length === 1 && nodes[0].id === group) return nodes[0];
  const { top, side } = PADDING;
  const padding = `[top=${top},left=${side},bottom=${side},right=${side}]`;
  return {
    id: `box:${group}`, children: nodes,
    layoutOptions: layered ? { ...layered, "elk.padding": padding } : { ...PACKED, "elk.spacing.nodeNode": "18", "elk.padding": padding },
  };
}

const round = (number) => Math.round(number * 10) / 10;
const pair = (point) => [round(point.x), round(point.y)];
