import { html } from "./dom.js";
import { milliseconds } from "./numbers.js";
import { markOf } from "./verdicts.js";

// The life of a connection, top to bottom: who sent, which way, where it was seen, what became of it.
export function sequence(events, chosen, choose) {
  const list = html("ol", { class: "sequence" });
  let node = "";
  for (const event of events) {
    const hops = [event.nat && `source becomes ${event.nat}`, event.proxy > 0 && `proxy port ${event.proxy}`].filter(Boolean).join(", ");
    const line = html("li", { "data-verdict": event.verdict, class: event.forth ? "forth" : "back", "aria-current": event.id === chosen ? "true" : null },
      event.node !== node && html("b", { class: "node" }, event.node),
      html("button", { type: "button", title: `${event.source} → ${event.destination}` },
        html("span", { class: "at" }, `+${milliseconds(event.ms)}`), html("span", { class: "way", "aria-label": event.forth ? "sent" : "answered" }, event.forth ? "━━▶" : "◀━━"),
        html("span", { class: "mark" }, markOf(event.verdict)), html("span", { class: "what" }, event.type, " ", html("span", { class: "muted" }, event.summary)),
        hops && html("span", { class: "hop" }, hops)));
    line.querySelector("button").addEventListener("click", () => choose(event.id));
    node = event.node;
    list.append(line);
  }
  return list;
}
