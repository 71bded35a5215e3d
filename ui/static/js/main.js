// Wires the elements together. What is shown follows from State; what is known comes from Live.
import { address, ask, scope } from "./api.js";
import { ColumnMenu } from "./column-menu.js";
import { ConnectionState } from "./connection-state.js";
import { DetailPanel } from "./detail-panel.js";
import { DnsView } from "./dns-view.js";
import { copy } from "./dom.js";
import { EmptyHelp } from "./empty-help.js";
import { FilterBox } from "./filter-box.js";
import { FindingsList } from "./findings-list.js";
import { FlowTable } from "./flow-table.js";
import { GroupView } from "./group-view.js";
import { HealthView } from "./health-view.js";
import { Live } from "./live.js";
import { ServiceMap } from "./map/service-map.js";
import { RequestsView } from "./requests-view.js";
import { State } from "./state.js";
import { ThemeToggle } from "./theme-toggle.js";
import { TimeBar } from "./time-bar.js";

const ELEMENTS = {
  "column-menu": ColumnMenu, "connection-state": ConnectionState, "detail-panel": DetailPanel, "dns-view": DnsView, "empty-help": EmptyHelp,
  "filter-box": FilterBox, "findings-list": FindingsList, "flow-table": FlowTable, "group-view": GroupView, "health-view": HealthView,
  "requests-view": RequestsView, "service-map": ServiceMap, "theme-toggle": ThemeToggle, "time-bar": TimeBar,
};
for (const [name, made] of Object.entries(ELEMENTS)) customElements.define(name, made);

const USUAL = innerWidth > 720
  ? ["time", "verdict", "source", "destination", "type", "summary"] : ["time", "verdict", "source_workload", "destination_workload", "summary"];
const state = new State();
const live = new Live();
const one = (selector) => document.querySelector(selector);
const [map, table, filter, bar, panel, groups, menu, empty] = ["service-map", "flow-table", "filter-box", "time-bar", "detail-panel", "group-view", "column-menu", "empty-help"].map(one);
const views = { findings: one("findings-list"), l7: one("requests-view"), dns: one("dns-view"), health: one("health-view") };
let columns = [];
let relay = null;
let command = null;
let wasTall = false;
let isDrawn = false; // nothing is empty before the first answer
let addressProblem = state.problems[0]?.text ?? ""; // of times in the address; stays until another time is chosen

const wish = () => ({
  filter: state.get("filter"), range: state.get("range"), compare: state.get("compare"), bar_s: state.get("bar_s"), paused: state.get("paused") || Boolean(state.get("sort")),
  opened: state.get("opened"), closed: state.get("closed"), columns: names(), view: state.get("view"), tall: map.tall,
});
const names = () => (state.get("columns") ?? USUAL).filter((name) => columns.length === 0 || columns.some((column) => column.name === name));
table.scope = () => ({ ...scope(state), columns: names().join(",") });

// From the server.
live.addEventListener("hello", ({ detail }) => {
  const first = columns.length === 0;
  columns = detail.columns;
  if (first) showColumns();
  if (first && state.get("sort")) sorted();
});
live.addEventListener("opened", ({ detail }) => {
  map.reset();
  if (!detail.again) return;
  panel.hidden || panel.dataset.kind !== "flow" || panel.flow(state.get("flow"));
});
live.addEventListener("flows", ({ detail }) => {
  if (state.get("sort")) return;
  if (detail.restart) table.fill(detail.rows.toReversed(), detail.more);
  else table.append(detail.rows, detail.missed);
  explainEmpty();
});
live.addEventListener("map", ({ detail }) => { isDrawn = true; map.show(detail); explainEmpty(); });
live.addEventListener("time", ({ detail }) => bar.show(detail));
live.addEventListener("spark", ({ detail }) => map.spark.show(detail));
live.addEventListener("view", ({ detail }) => views[detail.name]?.show(detail.data));
live.addEventListener("state", ({ detail }) => { relay = detail; one("connection-state").show(detail); explainEmpty(); });
live.addEventListener("accepted", ({ detail }) => { command = detail.command; filter.problem(""); bar.problem(addressProblem); problem(""); });
live.addEventListener("problem", ({ detail }) => tellProblem(detail));

// From the person.
filter.addEventListener("change", () => state.set({ filter: filter.value }));
empty.addEventListener("range", ({ detail }) => state.set({ range: detail.range, paused: false }));
bar.addEventListener("range", ({ detail }) => state.set({ range: detail.range, paused: false }));
bar.addEventListener("bar", ({ detail }) => state.set({ bar_s: detail.bar_s }, { step: false }));
bar.addEventListener("compare", ({ detail }) => state.set({ compare: detail.on ? baseline() : null }));
map.addEventListener("toggle", ({ detail: { group, open } }) => toggleIsland(group, open));
map.addEventListener("spark", ({ detail }) => live.note({ type: "spark", ...detail }));
map.addEventListener("layout", ({ detail }) => live.note({ type: "layout", ...detail }));
map.addEventListener("shape", () => map.clientWidth && map.tall !== wasTall && live.tell({ tall: (wasTall = map.tall) }));
map.addEventListener("choose", ({ detail }) => { state.set({ flow: "" }, { step: false }); panel[detail.kind](detail); map.choose(detail[detail.kind].id); });
for (const element of [table, panel, one("requests-view")]) element.addEventListener("choose", ({ detail }) => state.set({ flow: detail.id }, { step: false }));
table.addEventListener("sort", ({ detail }) => state.set(detail));
for (const element of [table, menu]) element.addEventListener("columns", ({ detail }) => state.set({ columns: detail.columns }));
table.addEventListener("narrow", ({ detail: { word, value } }) => filter.narrow(`--${word} ${quoted(value)}`));
groups.addEventListener("narrow", ({ detail }) => filter.narrow(detail.map(({ word, value }) => `--${word} ${quoted(value)}`).join(" ")));
panel.addEventListener("narrow", ({ detail }) => filter.narrow(detail.words));
views.findings.addEventListener("narrow", ({ detail }) => { filter.value = detail.words; state.set({ filter: detail.words, view: "map" }); });
panel.addEventListener("close", closePanel);
panel.addEventListener("step", ({ detail }) => step(detail.step));
one("#pause").addEventListener("click", () => state.set({ paused: !state.get("paused") }, { step: false }));
one("#command").addEventListener("click", (event) => copy(event.currentTarget, fullCommand()));
one("#group").addEventListener("change", (event) => state.set({ group: event.target.value ? event.target.value.split(",") : [] }));
one("#search").addEventListener("input", (event) => search(event.target.value));
one("#search").addEventListener("change", (event) => jumpTo(event.target.value));
one("#search").addEventListener("keydown", (event) => event.key === "Enter" && jumpTo(event.target.value));
one("#idle").addEventListener("change", (event) => map.showIdle(event.target.checked));
for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => state.set({ view: button.dataset.view }));
for (const link of document.querySelectorAll("[data-export]")) link.addEventListener("click", () => { link.href = address("export", { ...scope(state), format: link.dataset.export }); });
const MAP_ACTIONS = { fit: () => { map.viewport.touched = false; map.fit(); }, in: () => map.viewport.scale(1.25), out: () => map.viewport.scale(0.8), arrange: () => map.rearrange(), png: () => map.save("png"), svg: () => map.save("svg") };
for (const button of document.querySelectorAll("[data-map]")) button.addEventListener("click", () => MAP_ACTIONS[button.dataset.map]());
document.addEventListener("keydown", onKey);

state.addEventListener("change", ({ detail: changed }) => {
  if (changed.has("range") || changed.has("compare")) addressProblem = state.problems[0]?.text ?? "";
  show(changed);
});

function show(changed) {
  const has = (...wanted) => wanted.some((name) => changed.has(name));
  if (has("filter") && filter.value !== state.get("filter")) filter.value = state.get("filter");
  if (has("columns")) showColumns();
  if (has("sort", "descending")) table.sorted = { sort: state.get("sort"), descending: state.get("descending") };
  if (has("filter", "range", "compare", "bar_s", "paused", "opened", "closed", "columns", "view", "sort")) live.tell(wish());
  if (has("range", "compare", "bar_s", "paused")) bar.choose({ range: state.get("range"), compare: state.get("compare"), bar_s: state.get("bar_s"), paused: state.get("paused") });
  if (has("paused")) showPaused();
  if (has("view")) showView();
  if (has("group", "filter", "range")) showGroups();
  if (state.get("sort") && has("sort", "descending", "filter", "range", "columns")) sorted();
  else if (has("sort")) live.tell({ ...wish(), columns: names() });
  if (has("flow")) state.get("flow") ? openFlow(state.get("flow")) : panel.dataset.kind === "flow" && panel.hide();
  document.body.classList.toggle("comparing", Boolean(state.get("compare")));
}

function showColumns() {
  const chosen = names();
  const known = new Map(columns.map((column) => [column.name, column]));
  if (state.get("columns") && chosen.length === 0) return state.set({ columns: null }, { step: false });
  table.columns = chosen.map((name) => known.get(name)).filter(Boolean);
  menu.show(columns, chosen);
  return undefined;
}

function showPaused() {
  const paused = state.get("paused");
  one("#pause").setAttribute("aria-pressed", String(paused));
  one("#pause").textContent = paused ? "Resume" : "Pause";
}

function showView() {
  const view = state.get("view");
  document.body.dataset.view = view;
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-selected", String(button.dataset.view === view));
}

function showGroups() {
  const by = state.get("group");
  const select = one("#group");
  select.value = [...select.options].some((option) => option.value === by.join(",")) ? by.join(",") : "";
  groups.hidden = by.length === 0;
  table.hidden = by.length > 0;
  if (by.length) groups.show(by, scope(state), columns);
}

async function sorted() {
  try {
    const found = await ask("flows", { ...table.scope(), sort: state.get("sort"), descending: state.get("descending") || null });
    table.fill(found.rows, false);
  } catch (error) {
    tellProblem({ control: error.control, text: error.message });
  }
}

function openFlow(id) {
  map.choose("");
  table.choose(id);
  panel.flow(id);
}

function closePanel() {
  panel.hide();
  map.choose("");
  table.choose("");
  state.set({ flow: "" }, { step: false });
}

function step(by) {
  const id = table.neighbour(by);
  if (id) state.set({ flow: id }, { step: false });
}

function toggleIsland(group, open) {
  const [opened, closed] = ["opened", "closed"].map((name) => state.get(name).filter((other) => other !== group));
  state.set(open ? { opened: [...opened, group], closed } : { opened, closed: [...closed, group] });
}

// What a chosen span, or the present, is compared with: the time of the same length before it.
function baseline() {
  const now = Date.now();
  const [from, to] = state.get("range") ?? [now - 60_000, now];
  return [from - (to - from), from];
}

// Cards that are on the map, and those in closed islands, which the server knows.
async function search(words) {
  const cards = words ? await findCards(words) : [];
  if (one("#search").value === words) one("#found").replaceChildren(...cards.map((card) => new Option(card.group, card.name)));
}

async function findCards(words) {
  const shown = map.find(words).filter((card) => card.kind !== "island");
  const { cards } = await ask("cards", { text: words }).catch(() => ({ cards: [] }));
  const ids = new Set(shown.map((card) => card.id));
  return [...shown, ...cards.filter((card) => !ids.has(card.id))].slice(0, 12);
}

let jumped = "";

async function jumpTo(words) {
  if (!words || words === jumped) return;
  jumped = words;
  setTimeout(() => { jumped = ""; }, 300); // Enter and the change that follows it are one jump
  const cards = await findCards(words);
  const card = cards.find((one_) => one_.name === words) ?? cards[0];
  if (!card) return problem(`No card is called ${words}.`);
  problem("");
  if (!map.has(card.id)) toggleIsland(card.group, true);
  map.jump(card.id);
  setTimeout(() => map.has(card.id) || problem(`${card.name} has no flows in what the map shows: choose a longer span, or another filter.`), 3000);
}

function explainEmpty() {
  const live_ = !state.get("range");
  // A span that is chosen may hold rows that are no arrows (lost events); the last minute may be quiet.
  const none = (isDrawn || relay?.state === "lost") && map.classList.contains("none") && (table.length === 0 || live_);
  const before = empty.hidden;
  empty.hidden = !none;
  if (none && (before || !empty.askedAt || performance.now() - empty.askedAt > 3000)) {
    empty.askedAt = performance.now();
    empty.explain({ scope: scope(state), state: relay, filter: state.get("filter"), live: live_, held: table.length > 0 });
  }
}

function fullCommand() {
  if (command === null) return "# This filter joins parts in a way that one command line cannot say: split it at its or and run each part.";
  const range = state.get("range");
  return range ? `${command} --since ${new Date(range[0]).toISOString()} --until ${new Date(range[1]).toISOString()}` : `${command} --follow`;
}

function tellProblem({ control, text }) {
  if (control === "filter") filter.problem(text);
  else if (control === "range" || control === "compare") bar.problem(text);
  else problem(text);
}

function problem(text) {
  const note = one("#problem");
  note.textContent = text;
  note.hidden = !text;
}

const quoted = (text) => (/^[^\s()"'\\]+$/.test(text) ? text : `"${text.replace(/(["\\])/g, "\\$1")}"`);

function onKey(event) {
  const typing = event.target.closest?.("input, select, textarea");
  if (event.key === "Escape") return closePanel();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  const actions = {
    " ": () => event.target.closest?.("button, a, summary, [role=button]") ? null : one("#pause").click(),
    "/": () => filter.input.focus(), m: () => one("#search").focus(), "]": () => step(1), "[": () => step(-1), f: MAP_ACTIONS.fit,
  };
  const action = actions[event.key];
  if (!action || (event.key === " " && event.target.closest?.("button, a, summary, [role=button]"))) return undefined;
  event.preventDefault();
  return action();
}

show(new Set(["filter", "range", "compare", "bar_s", "paused", "view", "flow", "sort", "descending", "group"]));
bar.problem(addressProblem);
live.connect();
