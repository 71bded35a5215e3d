import { html } from "./dom.js";
import { milliseconds } from "./numbers.js";
import { markOf } from "./verdicts.js";

// The way of a connection, from the end that opened it to the end that answers. Nothing where it goes straight.
export function way(stations) {
  if (stations.length < 3) return null;
  const words = {
    end: ({ text, seen }) => (seen === false ? `${text}: nothing was seen to go there` : text),
    service: ({ text }) => `service ${text}`,
    node: ({ text }) => `port of a node ${text}`,
    nat: ({ text, node, others }) => `${node} translates it, and goes on as ${text}${more(others)}`,
    proxy: ({ text, node, others }) => (text ? `proxy of ${node}, which goes on as ${text}${more(others)}` : `proxy of ${node}`),
  };
  return html("ol", { class: "stations", "aria-label": "Its way" }, ...stations.map((one) => html("li", { "data-kind": one.kind }, words[one.kind](one))));
}

const more = (others) => (others ? ` (${others} more would fit; this one is nearest in time)` : "");

// The life of a connection, top to bottom: who sent, which way, where it was seen, what became of it.
export function sequence(events, chosen, choose) {
  const list = html("ol", { class: "sequence" });
  let place = "";
  for (const event of events) {
    const sender = event.leg > 0 ? ` as ${event.forth ? event.source : event.destination}` : "";
    const hops = [event.nat && `source becomes ${event.nat}`, event.proxy > 0 && `proxy port ${event.proxy}`].filter(Boolean).join(", ");
    const line = html("li", { "data-verdict": event.verdict, "data-leg": event.leg, class: event.forth ? "forth" : "back", "aria-current": event.id === chosen ? "true" : null },
      event.node + sender !== place && html("b", { class: "node" }, html("span", {}, event.node), sender),
      html("button", { type: "button", title: `${event.source} → ${event.destination}` },
        html("span", { class: "at" }, `+${milliseconds(event.ms)}`), html("span", { class: "way", "aria-label": event.forth ? "sent" : "answered" }, event.forth ? "━━▶" : "◀━━"),
        html("span", { class: "mark" }, markOf(event.verdict)), html("span", { class: "what" }, event.type, " ", html("span", { class: "muted" }, event.summary)),
        hops && html("span", { class: "hop" }, hops)));
    line.querySelector("button").addEventListener("click", () => choose(event.id));
    place = event.node + sender;
    list.append(line);
  }
  return list;
}
