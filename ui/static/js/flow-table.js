import { ask } from "./api.js";
import { html } from "./dom.js";
import { markOf } from "./verdicts.js";

const ROW = 27; // pixels; the same in flowscope.css
const MOST_ROWS = 20000;
const SPARE = 8; // rows drawn beyond what is seen
const NEAR_END = 40;
const NARROW = 0.64; // of a column on a phone

// The flows, newest on top. Only the rows that are seen exist; older ones are fetched as they are scrolled to.
//
// In:  records [position, uuid, verdict, cell, ...] or gaps [position, null, text].
// Out: "choose" {id}, "sort" {sort, descending}, "columns" {columns}, "narrow" {words}.
export class FlowTable extends HTMLElement {
  #rows = [];
  #columns = [];
  #widths = {};
  #more = false;
  #loading = false;
  #chosen = "";
  #frame = 0;
  #sort = { sort: "", descending: false };

  connectedCallback() {
    this.port = this.querySelector(".scroll");
    this.head = this.querySelector(".head");
    this.body = this.querySelector(".rows");
    this.empty = this.querySelector(".empty");
    this.port.addEventListener("scroll", () => this.#later());
    this.port.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => this.#click(event));
    new ResizeObserver(() => this.#later()).observe(this.port);
    try { this.#widths = JSON.parse(localStorage.getItem("flowscope-widths") ?? "{}"); } catch { this.#widths = {}; }
  }

  // parameters: what the server is asked with for older rows.
  scope = () => ({});

  set columns(columns) {
    this.#columns = columns;
    this.#header();
    this.clear();
  }

  get columns() {
    return this.#columns;
  }

  get length() {
    return this.#rows.length;
  }

  set sorted(sort) {
    this.#sort = sort;
    this.#header();
  }

  clear() {
    this.#rows = [];
    this.#more = false;
    this.port.scrollTop = 0;
    this.#later();
  }

  // All rows, newest first.
  fill(rows, more) {
    this.#rows = rows;
    this.#more = more;
    this.port.scrollTop = 0;
    this.#later();
  }

  // Newer rows, oldest first. missed: matches between the last rows and these that were not sent.
  append(rows, missed) {
    const fresh = rows.toReversed();
    if (missed > 0) fresh.push([rows[0]?.[0] ?? null, null, `${missed.toLocaleString("en")} more flows here; click to load`, "missed"]);
    const { scrollTop } = this.port;
    this.#rows = [...fresh, ...this.#rows];
    if (this.#rows.length > MOST_ROWS) {
      this.#rows.length = MOST_ROWS;
      this.#more = true;
    }
    this.#paint(scrollTop > 0 ? scrollTop + fresh.length * ROW : 0);
  }

  choose(id) {
    this.#chosen = id;
    this.#later();
  }

  // The flow before or behind the chosen one, for keys.
  neighbour(step) {
    let at = this.#rows.findIndex((row) => row[1] === this.#chosen);
    do at += step; while (this.#rows[at] && !this.#rows[at][1]);
    const row = this.#rows[at];
    if (!row) return null;
    const top = at * ROW;
    if (top < this.port.scrollTop) this.port.scrollTop = top;
    else if (top + ROW * 2 > this.port.scrollTop + this.port.clientHeight) this.port.scrollTop = top - this.port.clientHeight + ROW * 3;
    return row[1];
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#paint();
    });
  }

  #paint(scrollTop = this.port.scrollTop) {
    const height = this.port.clientHeight;
    this.body.style.height = `${this.#rows.length * ROW}px`;
    if (this.port.scrollTop !== scrollTop) this.port.scrollTop = scrollTop;
    const first = Math.max(Math.floor(scrollTop / ROW) - SPARE, 0);
    const last = Math.min(Math.ceil((scrollTop + height) / ROW) + SPARE, this.#rows.length);
    const lines = [];
    for (let index = first; index < last; index += 1) lines.push(this.#line(index));
    this.body.replaceChildren(...lines);
    this.port.setAttribute("aria-rowcount", String(this.#more ? -1 : this.#rows.length));
    this.classList.toggle("none", this.#rows.length === 0);
    if (this.#more && last > this.#rows.length - NEAR_END) this.#older();
  }

  #line(index) {
    const row = this.#rows[index];
    const [, id, verdict, ...cells] = row;
    const line = html("div", { class: id ? "row" : "row gap", role: "row", "aria-rowindex": index + 1, "data-index": index });
    line.style.top = `${index * ROW}px`;
    if (!id) {
      line.append(html("span", { role: "cell" }, row[2]));
      if (row[3]) line.classList.add("missed");
      return line;
    }
    line.dataset.verdict = verdict;
    line.dataset.id = id;
    if (id === this.#chosen) line.setAttribute("aria-selected", "true");
    this.#columns.forEach((column, at) => {
      const words = cells[at] ?? "";
      const shown = column.name === "verdict" ? [html("span", { class: "mark", "aria-hidden": "true" }, markOf(verdict)), ` ${words}`] : [words];
      line.append(html("span", { role: "cell", class: column.name, title: words }, ...shown));
    });
    return line;
  }

  async #older() {
    if (this.#loading || this.#sort.sort) return;
    this.#loading = true;
    try {
      const before = this.#rows.at(-1)?.[0];
      const found = await ask("flows", { ...this.scope(), before, limit: 300 });
      this.#more = found.more;
      this.#rows = [...this.#rows, ...found.rows.toReversed()];
      this.#later();
    } catch { /* the server is away: scrolling asks again */ } finally {
      this.#loading = false;
    }
  }

  // Puts the flows that were passed over in their place.
  async #fillGap(index) {
    const before = this.#rows[index - 1]?.[0];
    const known = this.#rows[index + 1]?.[0] ?? -1;
    const found = await ask("flows", { ...this.scope(), before, limit: 500 });
    const between = found.rows.filter((row) => row[0] > known).toReversed();
    const rest = between.length === found.rows.length && found.more;
    this.#rows.splice(index, 1, ...between, ...(rest ? [[between.at(-1)[0], null, "more flows here; click to load", "missed"]] : []));
    this.#later();
  }

  #click(event) {
    const line = event.target.closest(".row");
    if (!line) return;
    if (line.classList.contains("missed")) this.#fillGap(Number(line.dataset.index));
    else if (line.dataset.id) {
      const cell = event.target.closest("[role=cell]");
      const column = this.#columns[[...line.children].indexOf(cell)];
      if (event.altKey && column?.filter) this.dispatchEvent(new CustomEvent("narrow", { detail: { word: column.filter, value: cell.title } }));
      else this.dispatchEvent(new CustomEvent("choose", { detail: { id: line.dataset.id } }));
    }
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const id = this.neighbour(step);
    if (id) this.dispatchEvent(new CustomEvent("choose", { detail: { id } }));
  }

  #header() {
    this.style.setProperty("--columns", this.#columns.map((column, at) => this.#track(column, at)).join(" "));
    const pixels = this.#columns.reduce((sum, column) => sum + (this.#widths[column.name] ?? column.width * (innerWidth > 720 ? 1 : NARROW)), 0);
    this.style.setProperty("--width", `${pixels}px`);
    this.head.replaceChildren(...this.#columns.map((column, at) => this.#title(column, at)));
  }

  // Room that is left goes to the columns that are longest, unless a person chose their width.
  #track(column, at) {
    const chosen = this.#widths[column.name];
    if (chosen) return `${chosen}px`;
    if (innerWidth <= 720) return `${Math.round(column.width * NARROW)}px`;
    const greedy = column.width >= 280 || at === this.#columns.length - 1;
    return greedy ? `minmax(${column.width}px, ${column.width}fr)` : `${column.width}px`;
  }

  #title(column, at) {
    const { sort, descending } = this.#sort;
    const mine = sort === column.name;
    const button = html("button", { type: "button", title: "Click to sort, drag to move; with the keyboard: Alt and left or right moves, Shift and left or right widens" }, column.title, mine ? (descending ? " ↓" : " ↑") : "");
    button.addEventListener("click", () => {
      const next = !mine ? { sort: column.name, descending: false } : !descending ? { sort: column.name, descending: true } : { sort: "", descending: false };
      this.dispatchEvent(new CustomEvent("sort", { detail: next }));
    });
    button.addEventListener("keydown", (event) => this.#titleKey(event, column, at));
    const cell = html("span", { role: "columnheader", draggable: "true", "data-column": column.name, "aria-sort": mine ? (descending ? "descending" : "ascending") : "none" }, button);
    cell.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/plain", column.name));
    cell.addEventListener("dragover", (event) => event.preventDefault());
    cell.addEventListener("drop", (event) => this.#moved(event, column.name));
    const handle = html("i", { class: "resize", "aria-hidden": "true" });
    handle.addEventListener("pointerdown", (event) => this.#resize(event, column, at));
    cell.append(handle);
    return cell;
  }

  #moved(event, target) {
    event.preventDefault();
    this.#move(event.dataTransfer.getData("text/plain"), this.#columns.findIndex((column) => column.name === target));
  }

  #move(name, to) {
    const names = this.#columns.map((column) => column.name);
    if (!names.includes(name) || to < 0 || to >= names.length || names[to] === name) return;
    names.splice(names.indexOf(name), 1);
    names.splice(to, 0, name);
    this.dispatchEvent(new CustomEvent("columns", { detail: { columns: names } }));
  }

  #titleKey(event, column, at) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !(event.altKey || event.shiftKey)) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.altKey) this.#move(column.name, at + step);
    else this.#widen(column, this.head.children[at].offsetWidth + 24 * step);
    this.head.querySelector(`[data-column="${column.name}"] button`)?.focus();
  }

  #widen(column, width) {
    this.#widths[column.name] = Math.max(48, Math.round(width));
    try { localStorage.setItem("flowscope-widths", JSON.stringify(this.#widths)); } catch { /* for this page only */ }
    this.#header();
  }

  #resize(event, column, at) {
    event.preventDefault();
    const from = event.clientX;
    const width = this.head.children[at].offsetWidth;
    const handle = event.currentTarget;
    handle.setPointerCapture(event.pointerId);
    handle.parentElement.draggable = false;
    handle.onpointermove = (move) => {
      this.#widths[column.name] = Math.max(48, Math.round(width + move.clientX - from));
      this.style.setProperty("--columns", this.#columns.map((one, index) => this.#track(one, index)).join(" "));
    };
    handle.onpointerup = () => {
      handle.onpointermove = handle.onpointerup = null;
      this.#widen(column, this.#widths[column.name] ?? width);
    };
  }
}
