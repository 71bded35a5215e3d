// New cards find a place without moving any other: nobody should lose what they look at because something appeared.
import { CARD, PADDING, SPACING } from "./sizes.js";

const STEP = { x: CARD.width + SPACING * 2, y: CARD.height + SPACING };

// Adds places for cards that have none. Returns whether any was added.
export function placeNew(cards, places) {
  const fresh = cards.filter((card) => !places[card.id]);
  for (const card of fresh) places[card.id] = spot(card, cards, places);
  return fresh.length > 0;
}

// The boxes of islands, around their cards.
export function boxes(cards, places, islands) {
  const found = new Map();
  for (const card of cards) {
    const at = places[card.id];
    if (!at || islands.get(card.group)?.closed) continue;
    const box = found.get(card.group) ?? { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
    box.left = Math.min(box.left, at[0] - PADDING.side);
    box.top = Math.min(box.top, at[1] - PADDING.top);
    box.right = Math.max(box.right, at[0] + CARD.width + PADDING.side);
    box.bottom = Math.max(box.bottom, at[1] + CARD.height + PADDING.side);
    found.set(card.group, box);
  }
  return found;
}

function spot(card, cards, places) {
  const placed = cards.filter((other) => places[other.id]);
  const mates = placed.filter((other) => other.group === card.group).map((other) => places[other.id]);
  if (placed.length === 0) return [PADDING.side, PADDING.top];
  const others = [...boxes(placed.filter((other) => other.group !== card.group), places, new Map()).values()];
  for (const [x, y] of candidates(mates)) {
    const grown = around([...mates, [x, y]]);
    const free = placed.every((other) => !overlaps([x, y], places[other.id]));
    if (free && others.every((box) => apart(grown, box))) return [x, y];
  }
  // A new island, or one that is walled in: below everything.
  const bottom = Math.max(...placed.map((other) => places[other.id][1])) + CARD.height;
  const left = Math.min(...placed.map((other) => places[other.id][0]));
  return [left, bottom + PADDING.side * 2 + PADDING.top];
}

function* candidates(mates) {
  const columns = [...new Set(mates.map(([x]) => x))];
  const lowest = (x) => Math.max(...mates.filter((mate) => mate[0] === x).map((mate) => mate[1]));
  for (const x of columns) yield [x, lowest(x) + STEP.y];
  for (const [x, y] of mates) yield [x + STEP.x, y];
  for (const [x, y] of mates) yield [x - STEP.x, y];
  for (const x of columns) yield [x, Math.min(...mates.filter((mate) => mate[0] === x).map((mate) => mate[1])) - STEP.y];
}

const around = (points) => ({
  left: Math.min(...points.map(([x]) => x)) - PADDING.side,
  top: Math.min(...points.map(([, y]) => y)) - PADDING.top,
  right: Math.max(...points.map(([x]) => x)) + CARD.width + PADDING.side,
  bottom: Math.max(...points.map(([, y]) => y)) + CARD.height + PADDING.side,
});
const apart = (a, b) => a.right < b.left || b.right < a.left || a.bottom < b.top || b.bottom < a.top;
const overlaps = ([ax, ay], [bx, by]) =>
  Math.abs(ax - bx) < CARD.width + SPACING / 2 && Math.abs(ay - by) < CARD.height + SPACING / 2;
