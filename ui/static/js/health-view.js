import { html } from "./dom.js";
import { clock, count } from "./numbers.js";

// How well the network is watched: nodes, gaps, what is held, what this page's server costs.
export class HealthView extends HTMLElement {
  show(health) {
    const { held, process } = health;
    const facts = [
      ["Relay", health.relay], ["Coverage", `${health.coverage}% of events were seen`], ["Lost", `${count(health.lost)} events`],
      ["Held here", `${count(held.flows)} of ${count(held.capacity)} flows${held.from_ms ? `, since ${clock(held.from_ms)} UTC` : ""}`],
      ["This server", `${process.cpu_percent}% of a CPU, ${process.memory_mib} MiB, up ${Math.round(process.up_s / 60)} min`],
    ];
    this.querySelector("dl").replaceChildren(...facts.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]));
    this.querySelector("tbody").replaceChildren(...health.nodes.map((node) => html("tr", {},
      html("td", {}, node.name), html("td", { class: `state ${node.state}` }, `${node.state === "connected" ? "●" : "✕"} ${node.state}`),
      html("td", { class: "number" }, count(node.flows)), html("td", { class: node.lost ? "number bad" : "number" }, count(node.lost)),
      html("td", { class: "number" }, `${node.coverage}%`), html("td", { class: "number" }, node.newest_ms ? clock(node.newest_ms) : ""))));
  }
}
