import { html } from "./dom.js";
import { count, milliseconds } from "./numbers.js";

// DNS names asked for, by whom, and what was answered.
export class DnsView extends HTMLElement {
  show(names) {
    this.classList.toggle("none", names.length === 0);
    this.querySelector("tbody").replaceChildren(...names.map((name) => html("tr", {},
      html("td", { title: name.query }, name.query), html("td", { class: "number" }, count(Math.max(name.questions, name.answers))),
      html("td", {}, Object.entries(name.rcodes).map(([code, number]) => html("span", { class: code === "NOERROR" ? "code c2" : "code c5" }, `${code} ×${count(number)}`))),
      html("td", {}, name.askers.join(", ")), html("td", {}, name.ips.join(", ")), html("td", { class: "number" }, name.slowest_ms ? milliseconds(name.slowest_ms) : ""))));
  }
}
