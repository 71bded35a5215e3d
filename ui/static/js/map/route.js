// Ways of single arrows around cards that stand fixed: WebCola's grid router, where ELK's own routes no longer hold.
import { boxes } from "./place.js";
import { CARD } from "./sizes.js";

const MARGIN = 12;
const NUDGE = 10;
const TOO_MANY = 150;

// Routes for `edges`, around `cards` in their `places`. Straight where there is too much to look at anyway.
export function routeAround(edges, cards, places, islands) {
  const wanted = edges.filter((edge) => edge.source !== edge.target && places[edge.source] && places[edge.target]);
  if (wanted.length > TOO_MANY || cards.length > TOO_MANY) return straight(wanted, places);
  try {
    return routed(wanted, cards, places, islands);
  } catch {
    return straight(wanted, places); // the router refuses cards that lie on each other
  }
}

function routed(edges, cards, places, islands) {
  const standing = cards.filter((card) => places[card.id]);
  const number = new Map(standing.map((card, index) => [card.id, index]));
  const nodes = standing.map(({ id }) => ({ bounds: rectangle(places[id][0], places[id][1], CARD.width, CARD.height) }));
  for (const [group, box] of boxes(standing, places, islands)) {
    nodes.push({
      bounds: rectangle(box.left, box.top, box.right - box.left, box.bottom - box.top),
      children: standing.filter((card) => card.group === group).map((card) => number.get(card.id)),
    });
  }
  const router = new cola.GridRouter(nodes, { getChildren: (node) => node.children, getBounds: (node) => node.bounds }, MARGIN);
  const ways = router.routeEdges(edges, NUDGE, (edge) => number.get(edge.source), (edge) => number.get(edge.target));
  const found = edges.map((edge, index) => [edge.id, way(ways[index])]).filter(([, route]) => route);
  const known = new Set(found.map(([id]) => id));
  return { ...straight(edges.filter(({ id }) => !known.has(id)), places), ...Object.fromEntries(found) };
}

// Null where the router's nudging of ways that lie on each other has come to no number.
function way(segments) {
  const points = [segments[0][0], ...segments.map((segment) => segment[1])].map(({ x, y }) => [x, y]);
  if (!points.flat().every(Number.isFinite)) return null;
  const longest = segments.reduce((best, segment) => (length(segment) > length(best) ? segment : best));
  return { points: points.slice(0, 60), label: [(longest[0].x + longest[1].x) / 2, (longest[0].y + longest[1].y) / 2] };
}

function straight(edges, places) {
  return Object.fromEntries(edges.map((edge) => {
    const from = center(places[edge.source]);
    const to = center(places[edge.target]);
    const points = [clip(from, to), clip(to, from)];
    return [edge.id, { points, label: [(points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2] }];
  }));
}

// Where the line from the middle of a card to another point leaves the card.
function clip([x, y], [toX, toY]) {
  const [dx, dy] = [toX - x, toY - y];
  const scale = Math.min(CARD.width / 2 / Math.abs(dx || 1e-9), CARD.height / 2 / Math.abs(dy || 1e-9), 1);
  return [x + dx * scale, y + dy * scale];
}

const center = ([x, y]) => [x + CARD.width / 2, y + CARD.height / 2];
const rectangle = (x, y, width, height) => new cola.Rectangle(x, x + width, y, y + height);
const length = ([from, to]) => Math.abs(from.x - to.x) + Math.abs(from.y - to.y);
