import { ask } from "./api.js";
import { copy, html } from "./dom.js";
import { edgeWords, portWords } from "./map/draw.js";
import { clock, count, milliseconds, percent, rate } from "./numbers.js";
import { sequence, way } from "./sequence.js";
import { markOf } from "./verdicts.js";

// Everything about one flow, one card or one arrow.
// Out: "close", "step" {step}, "choose" {id}, "narrow" {words}.
export class DetailPanel extends HTMLElement {
  #asked = 0;

  connectedCallback() {
    this.title_ = this.querySelector("h2");
    this.body = this.querySelector(".body");
    const tell = (name, detail) => this.dispatchEvent(new CustomEvent(name, { detail }));
    this.querySelector(".close").addEventListener("click", () => tell("close"));
    this.querySelector(".earlier").addEventListener("click", () => tell("step", { step: 1 }));
    this.querySelector(".later").addEventListener("click", () => tell("step", { step: -1 }));
  }

  hide() {
    this.hidden = true;
    this.#asked += 1;
  }

  async flow(id) {
    const asked = (this.#asked += 1);
    this.#open("flow", "Flow", [html("p", { class: "muted" }, "Looking…")]);
    try {
      const story = await ask("flow", { id });
      if (asked === this.#asked) this.#story(story);
    } catch (error) {
      if (asked === this.#asked) this.#open("flow", "Flow", [html("p", { class: "note", role: "alert" }, error.message)]);
    }
  }

  card({ card, edges }) {
    const told = (edge, other) => html("li", {}, html("b", {}, other), ` ${edgeWords(edge).first}`);
    const [callers, called] = [edges.filter((edge) => edge.target === card.id), edges.filter((edge) => edge.source === card.id)];
    const words = cardFilter(card);
    this.#open("card", card.name, [
      html("dl", {}, ...pairs([["Kind", card.kind], ["Group", card.group.replace(/^ns\//, "namespace ")], ["Labels", card.labels.join(", ")],
        ["Ports", card.ports.map(portWords).join(", ")]])),
      words && this.#narrowing("Show only its flows", words),
      this.#counted("Requests it answers", `${cardFilter(card, "from")} --type l7 --protocol http`, "http_method,http_url,http_status"),
      this.#counted("Names it asks for", `${cardFilter(card, "to")} --type l7 --protocol dns`, "dns_query,dns_rcode"),
      html("h3", {}, `Asked by ${callers.length}`), html("ul", {}, ...callers.slice(0, 40).map((edge) => told(edge, edge.source))),
      html("h3", {}, `Asks ${called.length}`), html("ul", {}, ...called.slice(0, 40).map((edge) => told(edge, edge.target))),
    ]);
  }

  edge({ edge, source, target }) {
    const ends = [cardFilter(source, "from"), cardFilter(target, "to")].filter(Boolean).join(" ");
    const numbers = [
      ["Flows", rate(edge.rate)], ["Dropped", edge.drop ? percent(edge.drop) : "none"], ["Worst verdict", edge.verdict],
      ["Errors", edge.answers ? percent(edge.bad) : ""], ["Latency", edge.p99 ? `p50 ${milliseconds(edge.p50)}, p99 ${milliseconds(edge.p99)}` : ""],
      ["Encrypted", edge.encrypted ? "yes" : ""], ["Authenticated", edge.authenticated ? "yes" : ""], ["Before", edge.before?.rate !== undefined ? rate(edge.before.rate) : ""],
    ];
    this.#open("edge", `${source?.name ?? edge.source} → ${target?.name ?? edge.target}`, [
      html("dl", {}, ...pairs(numbers)),
      ends && this.#narrowing("Show its flows", ends),
      edge.drop > 0 && ends && this.#narrowing("Show what was dropped", `${ends} --verdict DROPPED`),
      html("h3", {}, "Ports"),
      html("ul", {}, ...edge.ports.map((port) => html("li", {}, html("b", {}, port.port ? portWords(port) : port.l4), ` ${rate(port.rate)}${port.drop ? `, ${percent(port.drop)} dropped` : ""}`))),
    ]);
  }

  #story(story) {
    this.#open("flow", story.title.type || "Flow", [
      html("p", { class: "verdict", "data-verdict": story.verdict }, html("span", { class: "mark" }, markOf(story.verdict)), ` ${story.verdict}  `, html("span", { class: "muted" }, story.summary)),
      html("p", { class: "ends" }, html("b", {}, story.title.source), " → ", html("b", {}, story.title.destination)),
      html("p", { class: "muted" }, story.time),
      story.why && this.#why(story.why),
      html("h3", {}, "Its connection"), this.#connection(story),
      html("details", { open: !story.why }, html("summary", {}, "All fields"), html("dl", { class: "fields" }, ...pairs(flat(story.json)))),
      this.#json(story.json),
    ]);
  }

  #why(why) {
    const worked = why.worked ? `This pair last worked at ${clock(why.worked.ms)} UTC.` : "This pair has not worked as far back as flows are held.";
    const rule = why.rule ? html("pre", { class: "yaml" }, why.rule) : null;
    const button = rule && html("button", { type: "button", class: "small" }, "Copy rule");
    button?.addEventListener("click", () => copy(button, why.rule));
    return html("section", { class: "why", "aria-label": "Why" }, html("h3", {}, `Why: ${why.reason}`), html("p", {}, why.words), html("p", {}, why.where),
      why.verdict && html("p", {}, why.verdict), why.policies.length > 0 && html("ul", {}, ...why.policies.map((name) => html("li", {}, name))),
      html("p", {}, worked), rule && html("p", {}, "This rule would allow it:"), rule, button);
  }

  #connection({ id, connection }) {
    const list = sequence(connection.events, id, (chosen) => this.dispatchEvent(new CustomEvent("choose", { detail: { id: chosen } })));
    const rest = connection.left_out > 0 && html("p", { class: "muted" }, `${connection.left_out} more not shown`);
    return html("div", {}, way(connection.way), list, rest);
  }

  #json(json) {
    const text = JSON.stringify(json, null, 2);
    const button = html("button", { type: "button", class: "small" }, "Copy JSON");
    button.addEventListener("click", () => copy(button, text));
    return html("details", {}, html("summary", {}, "JSON"), button, html("pre", {}, text));
  }

  // What a card does at layer 7, counted by the server; nothing where nothing is known.
  #counted(title, filter, by) {
    const box = html("section", { hidden: true }, html("h3", {}, title));
    if (!filter.startsWith("--")) return null;
    ask("groups", { filter, by }).then(({ groups }) => {
      box.append(html("ul", {}, ...groups.slice(0, 10).map(([flows, , ...cells]) => html("li", {}, html("b", {}, cells.join("  ")), ` ${count(flows)}×`))));
      box.hidden = groups.length === 0;
    }, () => {});
    return box;
  }

  #narrowing(title, words) {
    const button = html("button", { type: "button", class: "small", title: words }, title);
    button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("narrow", { detail: { words } })));
    return button;
  }

  #open(kind, title, parts) {
    this.dataset.kind = kind;
    this.title_.textContent = title;
    this.body.replaceChildren(...parts.filter(Boolean));
    this.hidden = false;
    this.body.scrollTop = 0;
  }
}

// Words that pick the flows of a card; empty where there are none.
export function cardFilter(card, side = "") {
  if (!card) return "";
  const flag = (name) => `--${side ? `${side}-` : ""}${name}`;
  const quoted = (text) => (/^[\w./-]+$/.test(text) ? text : `"${text.replace(/(["\\])/g, "\\$1")}"`);
  if (card.id.startsWith("island:")) return card.group.startsWith("ns/") ? `${flag("namespace")} ${quoted(card.name)}` : "";
  if (card.id.startsWith("reserved:")) return `${flag("identity")} ${card.name}`;
  if (card.id.startsWith("identity:")) return `${flag("identity")} ${card.id.slice(9)}`;
  if (card.kind === "dns") return `${flag("fqdn")} ${quoted(card.name)}`;
  // Its own observer calls it host, others call it remote-node.
  if (card.kind === "node") return `${flag("identity")} host ${flag("identity")} remote-node`;
  return card.group.startsWith("ns/") ? `${flag("pod")} ${quoted(card.id)}` : "";
}

const pairs = (list) => list.filter(([, value]) => value !== "" && value !== undefined).flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, String(value))]);

function flat(value, path = "") {
  if (value === null || typeof value !== "object") return [[path, String(value)]];
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) return [[path, value.join(", ")]];
  return Object.entries(value).flatMap(([name, inner]) => flat(inner, path ? `${path}.${name}` : name));
}
