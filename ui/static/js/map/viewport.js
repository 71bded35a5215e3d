// Moving and zooming the map: wheel, drag, two fingers, keys. Only a transform changes, so the browser moves pixels.
const ZOOM = { least: 0.04, most: 2.5 };
const TOOLS = 40; // pixels that the buttons take at the top
const OVERVIEW = 0.36; // below this, words on arrows are left out
const FAR = 0.72; // below this, they are few and large

export class Viewport {
  #at = { x: 0, y: 0, zoom: 1 };
  #pointers = new Map();
  #frame = 0;
  touched = false;

  constructor(element, layer) {
    this.element = element;
    this.layer = layer;
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    element.addEventListener("pointerdown", (event) => this.#down(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(name, (event) => this.#pointers.delete(event.pointerId));
    element.addEventListener("keydown", (event) => this.#key(event));
  }

  get zoom() {
    return this.#at.zoom;
  }

  // Show this box, as large as it goes.
  fit(box, most = 1.15) {
    const { clientWidth, clientHeight } = this.element;
    const height = clientHeight - TOOLS;
    if (!clientWidth || height <= 0) return;
    const zoom = Math.max(Math.min(clientWidth / box.width, height / box.height, most), ZOOM.least);
    this.#set({ zoom, x: clientWidth / 2 - (box.x + box.width / 2) * zoom, y: TOOLS + height / 2 - (box.y + box.height / 2) * zoom });
  }

  centre([x, y], zoom = Math.max(this.#at.zoom, 0.8)) {
    this.touched = true;
    const { clientWidth, clientHeight } = this.element;
    this.#set({ zoom, x: clientWidth / 2 - x * zoom, y: clientHeight / 2 - y * zoom });
  }

  pan(dx, dy) {
    this.touched = true;
    this.#set({ ...this.#at, x: this.#at.x + dx, y: this.#at.y + dy });
  }

  scale(factor, x = this.element.clientWidth / 2, y = this.element.clientHeight / 2) {
    this.touched = true;
    const zoom = Math.min(Math.max(this.#at.zoom * factor, ZOOM.least), ZOOM.most);
    const grown = zoom / this.#at.zoom;
    this.#set({ zoom, x: x - (x - this.#at.x) * grown, y: y - (y - this.#at.y) * grown });
  }

  #set(at) {
    this.#at = at;
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const { x, y, zoom } = this.#at;
      this.layer.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
      this.element.classList.toggle("overview", zoom < OVERVIEW);
      this.element.classList.toggle("far", zoom < FAR);
    });
  }

  #wheel(event) {
    event.preventDefault();
    const box = this.element.getBoundingClientRect();
    if (event.shiftKey) return this.pan(-event.deltaY, 0);
    return this.scale(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) / 220), event.clientX - box.left, event.clientY - box.top);
  }

  #down(event) {
    if (event.target.closest(".card, button")) return;
    this.#pointers.set(event.pointerId, event);
    this.element.setPointerCapture?.(event.pointerId);
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.#pointers.values()].filter((pointer) => pointer.pointerId !== event.pointerId);
    this.#pointers.set(event.pointerId, event);
    if (others.length === 0) return this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
    const box = this.element.getBoundingClientRect();
    const [other] = others;
    const spread = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY) || 1;
    return this.scale(spread(event) / spread(before), (event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top);
  }

  #key(event) {
    if (event.target !== this.element) return;
    const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (moves[event.key]) this.pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.scale(1.25);
    else if (event.key === "-") this.scale(0.8);
    else return;
    event.preventDefault();
  }
}
