import { arrange } from "./arrange.js";
import { CardShape, EdgeShape, IslandShape, edgeWords } from "./draw.js";
import { download, mapAsPng, mapAsSvg } from "./export.js";
import { boxes, placeNew } from "./place.js";
import { routeAround } from "./route.js";
import { CARD } from "./sizes.js";
import { Spark } from "./spark.js";
import { Viewport } from "./viewport.js";

const SETTLE_MS = 6000; // a layout so young may still be made anew: nobody has got used to it
const MANY_ARROWS = 220; // more are drawn as one line per verdict; those of one card stand out when it is pointed at
const DRAG_STARTS = 5;

// Cards and arrows. The server says what is on the map and keeps where it stands; ELK makes the first layout, new cards
// are placed beside what stands, and people move cards. Numbers change without anything moving.
//
// Out: "choose" {kind: "card" | "edge" | "island", ...}, "layout" {view, layout}, "spark" {edge}, "toggle" {group, open}.
export class ServiceMap extends HTMLElement {
  #cards = new Map();
  #edges = new Map();
  #islands = new Map();
  #shapes = { cards: new Map(), edges: new Map(), islands: new Map() };
  #layers = {};
  #layout = null;
  #view = null;
  #bornAt = 0;
  #shape = "";
  #busy = false;
  #drag = null;
  #hasDrawn = false;
  #focus = null;
  #chosen = "";
  #awaited = null;

  connectedCallback() {
    this.drawing = this.querySelector("svg");
    for (const name of ["islands", "bulk", "edges", "cards", "labels"]) this.#layers[name] = this.drawing.querySelector(`.${name}`);
    this.empty = this.querySelector(".empty");
    this.viewport = new Viewport(this.querySelector(".port"), this.drawing);
    this.spark = new Spark(this.querySelector(".port"));
    this.#listen();
    new ResizeObserver(() => this.#resized()).observe(this);
  }

  // More height than width: then the layout goes downward.
  get tall() {
    if (innerWidth <= 720) return innerHeight > innerWidth; // whatever the panel leaves of it
    return this.clientWidth > 0 && this.clientHeight > this.clientWidth * 1.2;
  }

  // message: what changed, see ui/live.py.
  show(message) {
    for (const [name, kept] of [["islands", this.#islands], ["cards", this.#cards], ["edges", this.#edges]]) {
      for (const id of message.gone[name] ?? []) kept.delete(id);
      for (const value of message[name]) kept.set(value.id, value);
    }
    if (message.view !== this.#view) {
      this.#view = message.view;
      this.#layout = null;
      this.#bornAt = 0;
      this.viewport.touched = false;
    }
    if (message.layout) this.#take(message.layout);
    this.classList.toggle("none", this.#cards.size === 0);
    this.#draw();
  }

  // After a reconnect the server tells everything anew.
  reset() {
    for (const kept of [this.#cards, this.#edges, this.#islands]) kept.clear();
  }

  find(words) {
    const wanted = words.toLowerCase();
    return [...this.#cards.values()].filter((card) => [card.name, card.id, ...card.labels].some((text) => text.toLowerCase().includes(wanted)));
  }

  has(id) {
    return this.#cards.has(id);
  }

  // Mark the card or arrow that the panel tells of; empty: none.
  choose(id) {
    this.#chosen = id;
    this.#markChosen();
  }

  #markChosen() {
    for (const layer of ["cards", "edges"]) for (const [id, made] of this.#shapes[layer]) made.group.classList.toggle("chosen", id === this.#chosen);
  }

  // Show a card; one whose island is only now being opened, as soon as it is there.
  jump(id) {
    const at = this.#shapes.cards.has(id) && this.#layout?.places[id];
    this.#awaited = at ? null : id;
    if (!at) return;
    this.viewport.centre([at[0] + CARD.width / 2, at[1] + CARD.height / 2]);
    const shape = this.#shapes.cards.get(id)?.group;
    shape?.focus({ preventScroll: true });
    shape?.classList.add("found");
    setTimeout(() => shape?.classList.remove("found"), 2000);
  }

  fit() {
    const box = this.#box();
    if (box) this.viewport.fit(box);
  }

  showIdle(all) {
    this.classList.toggle("with-idle", all);
  }

  async save(format) {
    const box = this.#box();
    if (box) download(format === "png" ? await mapAsPng(this.drawing, box) : mapAsSvg(this.drawing, box), `flowscope-map.${format}`);
  }

  async rearrange() {
    this.#layout = null;
    this.#bornAt = 0;
    this.viewport.touched = false;
    await this.#draw();
  }

  // The panel takes room from the map: what it tells of is then shown as large as it goes.
  #resized() {
    const box = this.#chosen && this.#boxOfChosen();
    if (!this.viewport.touched) box ? this.viewport.fit(box) : this.fit();
    this.dispatchEvent(new CustomEvent("shape"));
  }

  #take(layout) {
    this.#layout = { places: layout.places, routes: layout.routes, pinned: layout.pinned };
    this.#bornAt ||= performance.now() - SETTLE_MS;
  }

  async #draw() {
    if (this.#cards.size === 0) return this.#paint();
    const shape = JSON.stringify([[...this.#cards.keys()].sort(), [...this.#edges.keys()].sort()]);
    if (shape !== this.#shape || !this.#layout) {
      if (this.#busy) return undefined; // the next message is at most a second away
      this.#busy = true;
      try {
        await this.#lay();
        this.#shape = shape;
      } finally {
        this.#busy = false;
      }
    }
    return this.#paint();
  }

  // Places for cards and ways for arrows that have none yet.
  async #lay() {
    const [cards, edges] = [[...this.#cards.values()], [...this.#edges.values()]];
    const missing = !this.#layout || cards.some((card) => !this.#layout.places[card.id]);
    const young = performance.now() - this.#bornAt < SETTLE_MS && !this.#layout?.pinned.length;
    const routeless = () => edges.filter((edge) => edge.source !== edge.target && !this.#layout.routes[edge.id]);
    // Most of what is here was never placed: what is stored is a corner of the map, seen through a filter.
    const corner = !this.#layout?.pinned.length && cards.filter((card) => !this.#layout?.places[card.id]).length * 2 > cards.length;
    if (!this.#layout || corner || (young && (missing || routeless().length))) {
      const view = this.#view;
      const made = await arrange(cards, edges, this.#islands, this.#view.startsWith("tall:"));
      if (view !== this.#view) return;
      this.#layout = made;
      this.#bornAt ||= performance.now();
    } else if (missing) {
      placeNew(cards, this.#layout.places);
    } else if (routeless().length === 0) {
      return;
    }
    Object.assign(this.#layout.routes, routeAround(routeless(), cards, this.#layout.places, this.#islands));
    this.#keep();
  }

  #keep() {
    const { places, routes, pinned } = this.#layout;
    this.dispatchEvent(new CustomEvent("layout", { detail: { view: this.#view, layout: { places, routes, pinned } } }));
  }

  #paint() {
    const places = this.#layout?.places ?? {};
    const cards = [...this.#cards.values()].filter((card) => places[card.id]);
    const around = boxes(cards, places, this.#islands);
    const toggle = (group) => this.dispatchEvent(new CustomEvent("toggle", { detail: { group, open: false } }));
    this.#sync("islands", [...around].filter(([group]) => this.#islands.has(group)).map(([group]) => this.#islands.get(group)),
      (island) => new IslandShape(island, toggle), (made, island) => made.show(island, around.get(island.id)));
    this.#sync("cards", cards, (card) => new CardShape(card), (made, card) => {
      made.show(card.kind === "island" ? { ...card, members: this.#islands.get(card.group)?.cards } : card);
      made.move(places[card.id], this.#layout.pinned.includes(card.id));
    });
    this.#paintEdges(places);
    this.#markChosen();
    if (this.#awaited && this.#shapes.cards.has(this.#awaited)) this.jump(this.#awaited);
    if (!this.viewport.touched && cards.length) {
      if (!this.#chosen) this.fit();
      if (!this.#hasDrawn) performance.mark("first-picture");
      this.#hasDrawn = true;
    }
  }

  #paintEdges(places) {
    const routes = this.#layout?.routes ?? {};
    const edges = [...this.#edges.values()].filter((edge) => routes[edge.id] && places[edge.source] && places[edge.target]);
    const bulk = edges.length > MANY_ARROWS;
    const standOut = bulk ? edges.filter((edge) => [edge.source, edge.target].includes(this.#focus)).slice(0, MANY_ARROWS) : edges;
    this.#sync("edges", standOut, (edge) => new EdgeShape(edge), (made, edge) => {
      made.show(edge);
      made.move(routes[edge.id]);
    });
    const lines = {};
    for (const edge of bulk ? edges : []) lines[edge.verdict] = `${lines[edge.verdict] ?? ""}M${routes[edge.id].points.join("L")}`;
    this.#layers.bulk.style.opacity = String(Math.max(0.12, Math.min(0.6, 400 / (edges.length || 1))));
    for (const path of this.#layers.bulk.children) path.setAttribute("d", lines[path.dataset.verdict] ?? "");
  }

  #sync(layer, values, make, tell) {
    const shapes = this.#shapes[layer];
    const ids = new Set(values.map((value) => value.id));
    for (const [id, made] of shapes) {
      if (!ids.has(id)) {
        made.group.remove();
        shapes.delete(id);
      }
    }
    for (const value of values) {
      let made = shapes.get(value.id);
      if (!made) {
        made = make(value);
        shapes.set(value.id, made);
        this.#layers[layer].append(made.group);
      }
      if (made.shown !== value || layer === "islands") tell(made, value);
      else if (layer === "cards") made.move(this.#layout.places[value.id], this.#layout.pinned.includes(value.id));
      else made.move(this.#layout.routes[value.id]);
      made.shown = value;
    }
  }

  // A card with its neighbours, or an arrow with its ends.
  #boxOfChosen() {
    const edges = [...this.#edges.values()].filter((edge) => [edge.id, edge.source, edge.target].includes(this.#chosen));
    const ids = new Set([this.#chosen, ...edges.flatMap((edge) => [edge.source, edge.target])]);
    return this.#box([...this.#cards.values()].filter((card) => ids.has(card.id)), edges.map((edge) => edge.id), false);
  }

  #box(cards = [...this.#cards.values()], edges = [...this.#edges.keys()], withIslands = true) {
    const places = cards.map((card) => this.#layout?.places[card.id]).filter(Boolean);
    if (places.length === 0) return null;
    const around = withIslands ? [...boxes(cards, this.#layout.places, this.#islands).values()] : [];
    const xs = [...places.flatMap(([x]) => [x, x + CARD.width]), ...around.flatMap((box) => [box.left, box.right])];
    const ys = [...places.flatMap(([, y]) => [y, y + CARD.height]), ...around.flatMap((box) => [box.top, box.bottom])];
    for (const edge of edges) for (const [x, y] of this.#layout.routes[edge]?.points ?? []) { xs.push(x); ys.push(y); }
    const least = (numbers) => numbers.reduce((a, b) => Math.min(a, b));
    const most = (numbers) => numbers.reduce((a, b) => Math.max(a, b));
    const [x, y] = [least(xs) - 16, least(ys) - 16];
    return { x, y, width: most(xs) - x + 16, height: most(ys) - y + 16 };
  }

  #listen() {
    const layer = this.drawing;
    layer.addEventListener("pointerdown", (event) => this.#grab(event));
    this.addEventListener("pointermove", (event) => this.#pull(event));
    this.addEventListener("pointerup", (event) => this.#drop(event));
    layer.addEventListener("click", (event) => this.#choose(event.target));
    layer.addEventListener("keydown", (event) => this.#key(event));
    layer.addEventListener("focusin", (event) => this.#focused(event.target));
    layer.addEventListener("focusout", () => this.spark.hide());
    layer.addEventListener("pointerover", (event) => this.#hover(event));
    for (const name of ["pointerover", "focusin"]) layer.addEventListener(name, (event) => this.#look(event.target.closest(".card")?.dataset.card));
    layer.addEventListener("pointerout", (event) => event.target.closest(".edge") && this.spark.hide());
    layer.addEventListener("dblclick", (event) => this.#unpin(event.target.closest(".card")));
  }

  #choose(target) {
    if (this.#drag?.moved) return;
    const card = target.closest(".card");
    const edge = target.closest(".edge");
    const tell = (detail) => this.dispatchEvent(new CustomEvent("choose", { detail }));
    if (card) {
      const value = this.#cards.get(card.dataset.card);
      if (value.kind === "island") this.dispatchEvent(new CustomEvent("toggle", { detail: { group: value.group, open: true } }));
      else tell({ kind: "card", card: value, edges: [...this.#edges.values()].filter((one) => [one.source, one.target].includes(value.id)) });
    } else if (edge) {
      const value = this.#edges.get(edge.dataset.edge);
      tell({ kind: "edge", edge: value, source: this.#cards.get(value.source), target: this.#cards.get(value.target) });
    }
  }

  // Enter chooses; Alt and an arrow key move a card as dragging does, Delete lets it go.
  #key(event) {
    const card = event.target.closest(".card");
    const step = { ArrowLeft: [-20, 0], ArrowRight: [20, 0], ArrowUp: [0, -20], ArrowDown: [0, 20] }[event.key];
    if (event.key === "Enter") this.#choose(event.target);
    else if (card && event.altKey && step) this.#shift(card.dataset.card, step);
    else if (card && event.key === "Delete") this.#unpin(card);
    else return;
    event.preventDefault();
  }

  #shift(id, [dx, dy]) {
    const [x, y] = this.#layout.places[id];
    this.#layout.places[id] = [x + dx, y + dy];
    if (!this.#layout.pinned.includes(id)) this.#layout.pinned.push(id);
    this.viewport.touched = true;
    this.#reroute(id);
    this.#paint();
    this.#keep();
  }

  // What the pointer gets by hovering, the keyboard gets by focus.
  #focused(target) {
    const edge = target.closest(".edge");
    if (!edge || !target.matches(":focus-visible")) return;
    const [box, at] = [this.getBoundingClientRect(), edge.querySelector(".label").getBoundingClientRect()];
    this.#showSpark(edge, at.left - box.left, at.bottom - box.top);
  }

  // Among very many arrows, those of the card that is looked at are drawn one by one.
  #look(card) {
    if (!card || card === this.#focus) return;
    this.#focus = card;
    if (this.#edges.size > MANY_ARROWS) this.#paintEdges(this.#layout?.places ?? {});
  }

  #hover(event) {
    const edge = event.target.closest(".edge");
    if (!edge || this.#drag) return;
    const box = this.getBoundingClientRect();
    this.#showSpark(edge, event.clientX - box.left, event.clientY - box.top);
  }

  #showSpark(edge, x, y) {
    const value = this.#edges.get(edge.dataset.edge);
    if (!value) return;
    edge.querySelector("title").textContent = ""; // the sparkline says it better
    this.spark.at(value.id, edgeWords(value).whole, x, y);
    this.dispatchEvent(new CustomEvent("spark", { detail: { edge: value.id } }));
  }

  #grab(event) {
    const card = event.target.closest(".card");
    this.#drag = card && event.button === 0 ? { id: card.dataset.card, x: event.clientX, y: event.clientY, moved: false } : null;
  }

  #pull(event) {
    const drag = this.#drag;
    if (!drag || event.buttons === 0) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moved && Math.hypot(dx, dy) < DRAG_STARTS) return;
    drag.from ??= this.#layout.places[drag.id];
    drag.moved = true;
    this.setPointerCapture?.(event.pointerId);
    const { zoom } = this.viewport;
    this.#layout.places[drag.id] = [Math.round(drag.from[0] + dx / zoom), Math.round(drag.from[1] + dy / zoom)];
    this.#reroute(drag.id);
    this.viewport.touched = true;
    this.#paint();
  }

  #drop(event) {
    const drag = this.#drag;
    if (!drag?.moved) return;
    this.releasePointerCapture?.(event.pointerId);
    if (!this.#layout.pinned.includes(drag.id)) this.#layout.pinned.push(drag.id);
    this.#paint();
    this.#keep();
    setTimeout(() => { this.#drag = null; }); // the click that follows is the end of the drag
  }

  #unpin(card) {
    if (!card || !this.#layout) return;
    this.#layout.pinned = this.#layout.pinned.filter((id) => id !== card.dataset.card);
    this.#paint();
    this.#keep();
  }

  // A moved card may stand in the way of others' arrows, so all that touch it or its box are routed anew.
  #reroute(id) {
    const edges = [...this.#edges.values()].filter((edge) => [edge.source, edge.target].includes(id) || this.#crosses(edge, id));
    Object.assign(this.#layout.routes, routeAround(edges, [...this.#cards.values()], this.#layout.places, this.#islands));
  }

  #crosses(edge, id) {
    const points = this.#layout.routes[edge.id]?.points ?? [];
    const [x, y] = this.#layout.places[id];
    const near = (low, high, from, to) => Math.min(from, to) <= high + 8 && Math.max(from, to) >= low - 8;
    return points.slice(1).some((point, index) =>
      near(x, x + CARD.width, points[index][0], point[0]) && near(y, y + CARD.height, points[index][1], point[1]));
  }
}
