import { html } from "./dom.js";
import { clock, count, rate } from "./numbers.js";

const programs = ({ programs: all, kernel_problem: problem }) => all.map(({ name, ns, per_s: times }) => `${name} ${count(ns)} ns${times ? ` × ${rate(times)}` : ""}`).join(", ") || problem;

// How well the network is watched: nodes, gaps, what is held, and what observation costs now.
export class HealthView extends HTMLElement {
  show(health) {
    const { held, costs } = health;
    const facts = [
      ["Relay", health.relay], ["Coverage", `${health.coverage}% of events were seen`], ["Lost", `${count(health.lost)} events`],
      ["Held here", `${count(held.flows)} of ${count(held.capacity)} flows${held.from_ms ? `, since ${clock(held.from_ms)} UTC` : ""}`],
      ["This page's server", `up ${Math.round(health.up_s / 60)} min`],
    ];
    this.querySelector("dl").replaceChildren(...facts.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]));
    this.querySelector(".nodes tbody").replaceChildren(...health.nodes.map((node) => html("tr", {},
      html("td", {}, node.name), html("td", { class: `state ${node.state}` }, `${node.state === "connected" ? "●" : "✕"} ${node.state}`),
      html("td", { class: "number" }, count(node.flows)), html("td", { class: node.lost ? "number bad" : "number" }, count(node.lost)),
      html("td", { class: "number" }, `${node.coverage}%`), html("td", { class: "number" }, node.newest_ms ? clock(node.newest_ms) : ""))));
    this.#costs(costs);
  }

  #costs({ processes, sentences, problem }) {
    const about = this.querySelector(".costs-words");
    about.replaceChildren(...[...sentences, problem].filter(Boolean).map((words) => html("p", { class: words === problem ? "muted" : null }, words)));
    this.querySelector(".costs tbody").replaceChildren(...processes.map((one) => html("tr", {},
      html("td", {}, one.role), html("td", {}, one.node),
      html("td", { class: "number" }, one.problem ? "" : `${one.cpu_percent}%`), html("td", { class: "number" }, one.problem ? "" : `${one.memory_mib} MiB`),
      html("td", { class: one.problem ? "muted" : null }, one.problem || programs(one)))));
  }
}
