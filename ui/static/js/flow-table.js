import { markOf } from "./verdicts.js";

const MOST_ROWS = 500;

// Newest flow on top. Text from the network is only ever set as text.
export class FlowTable extends HTMLElement {
  #body = null;
  #template = null;
  #empty = null;

  connectedCallback() {
    this.#body = this.querySelector("tbody");
    this.#template = this.querySelector("template").content;
    this.#empty = this.querySelector(".empty");
  }

  clear() {
    this.#body.replaceChildren();
    this.#empty.hidden = false;
  }

  // rows: oldest first. missed: how many flows were not sent because there were more than a person can read.
  append(rows, missed) {
    const fresh = rows.map((row) => (row.lost ? this.#gap(row) : this.#flow(row)));
    if (missed > 0) fresh.unshift(this.#gap({ text: `${missed.toLocaleString("en")} more flows, counted in the map and not listed here` }));
    this.#body.prepend(...fresh.reverse());
    while (this.#body.childElementCount > MOST_ROWS) this.#body.lastElementChild.remove();
    this.#empty.hidden = this.#body.childElementCount > 0;
  }

  #flow(row) {
    const line = this.#template.cloneNode(true).querySelector("tr");
    line.dataset.verdict = row.verdict;
    for (const name of ["time", "node", "source", "destination", "type", "summary"]) {
      const cell = line.querySelector(`.${name}`);
      cell.textContent = row[name];
      cell.title = row[name];
    }
    line.querySelector(".mark").textContent = markOf(row.verdict);
    line.querySelector(".word").textContent = row.verdict;
    return line;
  }

  #gap(row) {
    const line = document.createElement("tr");
    line.className = "gap";
    const cell = line.insertCell();
    cell.colSpan = 7;
    cell.textContent = row.text;
    return line;
  }
}
