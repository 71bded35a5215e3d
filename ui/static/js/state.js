// What the page shows, kept in the address so that a reload or a shared link shows the same.
//
// In:  the address; `set` from the elements.
// Out: "change" events with the names of what changed in `detail`; "problem" events for an address that makes no sense.
const DEFAULTS = {
  filter: "", range: null, compare: null, bar_s: 300, paused: false, opened: [], closed: [], columns: null,
  view: "map", flow: "", group: [], sort: "", descending: false,
};
const VIEWS = ["map", "findings", "l7", "dns", "health", "flows"];

export class State extends EventTarget {
  #value = { ...DEFAULTS };
  #problems = [];

  constructor() {
    super();
    this.#read();
    addEventListener("popstate", () => {
      const before = this.#value;
      this.#value = { ...DEFAULTS, paused: before.paused };
      this.#read();
      this.#tell(Object.keys(DEFAULTS));
    });
  }

  get(name) {
    return this.#value[name];
  }

  get problems() {
    return this.#problems;
  }

  // step: whether "back" in the browser undoes it.
  set(change, { step = true } = {}) {
    const changed = Object.keys(change).filter((name) => JSON.stringify(change[name]) !== JSON.stringify(this.#value[name]));
    if (changed.length === 0) return;
    this.#value = { ...this.#value, ...change };
    if ("range" in change || "compare" in change) this.#problems = [];
    history[step ? "pushState" : "replaceState"](null, "", this.address());
    this.#tell(changed);
  }

  address() {
    const address = new URL(location.href);
    address.search = "";
    const write = (name, value) => value && address.searchParams.set(name, value);
    const { filter, range, compare, bar_s, opened, closed, columns, view, flow, group, sort, descending } = this.#value;
    write("filter", filter);
    write("from", range && iso(range[0]));
    write("to", range && iso(range[1]));
    write("compare", compare && compare.map(iso).join("_"));
    write("bar", bar_s !== DEFAULTS.bar_s && String(bar_s));
    write("opened", opened.join("~"));
    write("closed", closed.join("~"));
    write("columns", columns && columns.join(","));
    write("view", view !== "map" && view);
    write("flow", flow);
    write("group", group.join(","));
    write("sort", sort && (descending ? `-${sort}` : sort));
    return address;
  }

  #tell(names) {
    this.dispatchEvent(new CustomEvent("change", { detail: new Set(names) }));
  }

  #read() {
    const given = new URLSearchParams(location.search);
    const list = (name, by) => (given.get(name) ?? "").split(by).filter(Boolean).slice(0, 500);
    this.#problems = [];
    const value = this.#value;
    value.filter = (given.get("filter") ?? "").slice(0, 4000);
    if (given.has("from") || given.has("to")) value.range = this.#span("range", given.get("from"), given.get("to"));
    if (given.has("compare")) value.compare = this.#span("compare", ...given.get("compare").split("_"));
    const bar = Number(given.get("bar") ?? DEFAULTS.bar_s);
    value.bar_s = Number.isInteger(bar) && bar >= 30 && bar <= 3600 ? bar : DEFAULTS.bar_s;
    value.opened = list("opened", "~");
    value.closed = list("closed", "~");
    value.columns = given.has("columns") ? list("columns", ",") : null;
    value.view = VIEWS.includes(given.get("view")) ? given.get("view") : "map";
    value.flow = given.get("flow") ?? "";
    value.group = list("group", ",").slice(0, 3);
    const sort = given.get("sort") ?? "";
    value.sort = sort.replace(/^-/, "");
    value.descending = sort.startsWith("-");
  }

  #span(control, from, to) {
    const span = [Date.parse(from ?? ""), Date.parse(to ?? "")];
    if (span.every((ms) => Number.isFinite(ms) && ms >= 0) && span[0] < span[1]) return span;
    this.#problems.push({ control, text: "The address has a time that cannot be read; showing the present instead." });
    return null;
  }
}

const iso = (ms) => new Date(ms).toISOString();
