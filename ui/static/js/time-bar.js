import { svg } from "./dom.js";
import { clock, count } from "./numbers.js";

const BANDS = ["forwarded", "dropped", "other", "lost"];
const HEIGHT = 44;

// How much happened when, by outcome; drag to choose a span. Live, paused or a range: the words say which.
// Out: "range" {range: [ms, ms] | null}, "bar" {bar_s}, "compare" {on}.
export class TimeBar extends HTMLElement {
  #span = [0, 1];
  #range = null;
  #compare = null;
  #from = null;

  connectedCallback() {
    this.plot = this.querySelector("svg");
    this.bars = this.plot.querySelector(".bars");
    this.words = this.querySelector(".words");
    this.note = this.querySelector(".note");
    const tell = (name, detail) => this.dispatchEvent(new CustomEvent(name, { detail }));
    this.plot.addEventListener("pointerdown", (event) => this.#start(event));
    this.plot.addEventListener("pointermove", (event) => this.#drag(event));
    this.plot.addEventListener("pointerup", (event) => this.#end(event));
    this.plot.addEventListener("keydown", (event) => this.#key(event));
    this.querySelector(".live").addEventListener("click", () => tell("range", { range: null }));
    this.querySelector("select").addEventListener("change", (event) => tell("bar", { bar_s: Number(event.target.value) }));
    this.querySelector(".compare").addEventListener("click", (event) => tell("compare", { on: event.currentTarget.getAttribute("aria-pressed") !== "true" }));
  }

  choose({ range, compare, bar_s, paused }) {
    this.#range = range;
    this.#compare = compare;
    this.querySelector("select").value = String(bar_s);
    this.dataset.mode = range ? "range" : paused ? "paused" : "live";
    this.querySelector(".live").setAttribute("aria-pressed", String(!range && !paused));
    this.querySelector(".compare").setAttribute("aria-pressed", String(Boolean(compare)));
    this.#say();
    this.#mark();
  }

  problem(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  show({ from, to, bins }) {
    this.#span = [from * 1000, to * 1000];
    const most = Math.max(1, ...bins.map((bin) => bin[0] + bin[1] + bin[2]));
    const width = 1000 / bins.length;
    // A root shows the few drops among many forwarded flows.
    const high = (number) => (number ? Math.max(1.5, HEIGHT * Math.sqrt(number / most)) : 0);
    this.bars.replaceChildren(...bins.flatMap((bin, index) => {
      const [forwarded, dropped, other, lost] = bin;
      const top = high(forwarded + dropped + other);
      const bad = Math.min(high(dropped), top);
      const made = [];
      const add = (name, y, height) => height > 0 && made.push(svg("rect", { class: name, x: index * width, width: width * 0.86, y, height }));
      add(forwarded ? "forwarded" : "other", HEIGHT - top, top - bad);
      add("dropped", HEIGHT - bad, bad);
      if (lost) made.push(svg("path", { class: "lost", d: `M${index * width} 0h${width}l${-width / 2} 8z` }));
      return made;
    }));
    const sums = BANDS.map((_, band) => bins.reduce((sum, bin) => sum + bin[band], 0));
    this.plot.setAttribute("aria-label", `Flows by time: ${sums.map((sum, band) => `${count(sum)} ${BANDS[band]}`).join(", ")}`);
    this.querySelector(".begin").textContent = clock(this.#span[0]);
    this.querySelector(".finish").textContent = this.#range ? clock(this.#span[1]) : "now";
    this.#mark();
  }

  #say() {
    const span = ([from, to]) => `${clock(from)} – ${clock(to)}`;
    const mode = { live: "the map shows the last minute", paused: "Paused: the table stands still, the map goes on", range: this.#range && span(this.#range) }[this.dataset.mode];
    this.words.textContent = this.#compare ? `${mode}, compared with ${span(this.#compare)}` : mode;
  }

  #mark() {
    for (const [name, span] of [["selection", this.#range], ["baseline", this.#compare]]) {
      const mark = this.plot.querySelector(`.${name}`);
      const [x, end] = (span ?? [0, 0]).map((ms) => Math.min(Math.max(this.#x(ms), 0), 1000));
      mark.setAttribute("x", x);
      mark.setAttribute("width", Math.max(end - x, 0));
    }
  }

  #x(ms) {
    return ((ms - this.#span[0]) / (this.#span[1] - this.#span[0])) * 1000;
  }

  #ms(event) {
    const box = this.plot.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    return Math.round(this.#span[0] + share * (this.#span[1] - this.#span[0]));
  }

  #start(event) {
    this.#from = this.#ms(event);
    this.plot.setPointerCapture?.(event.pointerId);
  }

  #drag(event) {
    if (this.#from === null) return;
    this.#range = [this.#from, this.#ms(event)].sort((a, b) => a - b);
    this.#mark();
  }

  #end(event) {
    if (this.#from === null) return;
    const span = [this.#from, this.#ms(event)].sort((a, b) => a - b);
    this.#from = null;
    const least = (this.#span[1] - this.#span[0]) / 300;
    this.dispatchEvent(new CustomEvent("range", { detail: { range: span[1] - span[0] < least ? null : span } }));
  }

  // Arrow keys move the span by its own length; the first press takes the newest fifth.
  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") return this.dispatchEvent(new CustomEvent("range", { detail: { range: null } }));
    if (!step) return undefined;
    event.preventDefault();
    const [from, to] = this.#range ?? [this.#span[1] - (this.#span[1] - this.#span[0]) / 5, this.#span[1]];
    const move = this.#range ? step * (to - from) : 0;
    return this.dispatchEvent(new CustomEvent("range", { detail: { range: [Math.round(from + move), Math.round(to + move)] } }));
  }
}
