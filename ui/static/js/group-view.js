import { ask } from "./api.js";
import { html } from "./dom.js";
import { count, percent } from "./numbers.js";

// Flows counted by up to three columns. Out: "narrow" {word, value}[] for a group that is clicked.
export class GroupView extends HTMLElement {
  async show(by, scope, columns) {
    const body = this.querySelector("tbody");
    this.querySelector(".note").hidden = true;
    try {
      const found = await ask("groups", { ...scope, by: by.join(",") });
      const known = new Map(columns.map((column) => [column.name, column]));
      const titles = ["Flows", "", "Dropped", ...by.map((name) => known.get(name)?.title ?? name)];
      this.querySelector("thead tr").replaceChildren(...titles.map((title) => html("th", { scope: "col" }, title)));
      const most = found.groups[0]?.[0] ?? 1;
      body.replaceChildren(...found.groups.slice(0, 500).map((group) => this.#row(group, most, by, known)));
      this.querySelector("caption").textContent = `${count(found.flows)} flows in ${count(found.groups.length)} groups${found.cut ? ", the rest counted as others" : ""}`;
    } catch (error) {
      this.querySelector(".note").textContent = error.message;
      this.querySelector(".note").hidden = false;
    }
  }

  #row([flows, dropped, ...cells], most, by, known) {
    const meter = html("meter", { min: 0, max: most, value: flows, "aria-hidden": "true" });
    const words = cells.map((cell, index) => ({ word: known.get(by[index])?.filter, value: cell })).filter(({ word, value }) => word && value);
    const row = html("tr", { tabindex: "0" }, html("td", { class: "number" }, count(flows)), html("td", {}, meter),
      html("td", { class: dropped ? "number bad" : "number" }, dropped ? percent((100 * dropped) / flows) : ""), cells.map((cell) => html("td", { title: cell }, cell || "—")));
    const narrow = () => words.length && this.dispatchEvent(new CustomEvent("narrow", { detail: words }));
    row.addEventListener("click", narrow);
    row.addEventListener("keydown", (event) => event.key === "Enter" && narrow());
    return row;
  }
}
