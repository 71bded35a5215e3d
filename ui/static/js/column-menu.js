import { html } from "./dom.js";

// Which columns the table has. Out: "columns" {columns}.
export class ColumnMenu extends HTMLElement {
  connectedCallback() {
    this.list = this.querySelector(".list");
    this.querySelector("input[type=search]").addEventListener("input", (event) => this.#narrow(event.target.value.toLowerCase()));
    this.querySelector(".usual").addEventListener("click", () => this.dispatchEvent(new CustomEvent("columns", { detail: { columns: null } })));
  }

  show(all, chosen) {
    this.chosen = chosen;
    this.list.replaceChildren(...all.map((column) => html("label", {}, html("input", {
      type: "checkbox", value: column.name, checked: chosen.includes(column.name), onchange: (event) => this.#changed(event.target),
    }), ` ${column.title}`)));
  }

  #changed(box) {
    const columns = box.checked ? [...this.chosen, box.value] : this.chosen.filter((name) => name !== box.value);
    if (columns.length) this.dispatchEvent(new CustomEvent("columns", { detail: { columns } }));
    else box.checked = true; // a table without columns tells nothing
  }

  #narrow(words) {
    for (const label of this.list.children) label.hidden = !label.textContent.toLowerCase().includes(words);
  }
}
