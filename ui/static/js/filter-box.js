import { ask } from "./api.js";
import { html } from "./dom.js";

const WAIT_MS = 120;

// The filter: the command line's own flags with and, or, not. Suggestions are values that were really seen.
// Out: "change" with `value` when the person is done with it (Enter, or a pause in quick toggles).
export class FilterBox extends HTMLElement {
  #items = [];
  #at = -1;
  #timer = 0;
  #place = { from: 0, to: 0 };

  connectedCallback() {
    this.input = this.querySelector("input");
    this.list = this.querySelector("[role=listbox]");
    this.note = this.querySelector(".note");
    this.input.addEventListener("input", () => this.#later());
    this.input.addEventListener("focus", () => this.#later());
    this.input.addEventListener("blur", () => setTimeout(() => this.#close(), 150));
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.querySelector(".clear").addEventListener("click", () => { this.value = ""; this.#done(); this.input.focus(); });
    for (const chip of this.querySelectorAll("[data-verdict]")) chip.addEventListener("click", () => this.#toggle(chip.dataset.verdict));
  }

  get value() {
    return this.input.value.trim();
  }

  set value(text) {
    this.input.value = text;
    this.problem("");
    this.#mark();
  }

  // What is wrong with the filter; empty: nothing.
  problem(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
    this.input.setAttribute("aria-invalid", String(Boolean(text)));
  }

  // Adds a condition, as a click elsewhere on the page asks for.
  narrow(words) {
    const before = this.value;
    if (before.includes(words)) return;
    const whole = / (or|not) |\(/.test(` ${before} `) ? `(${before}) and ${words}` : `${before} ${words}`;
    this.value = before ? whole.trim() : words;
    this.#done();
  }

  #toggle(verdict) {
    const words = `--verdict ${verdict}`;
    const chosen = this.value.split(/\s+(?=--)/).filter(Boolean);
    this.value = (chosen.includes(words) ? chosen.filter((word) => word !== words) : [...chosen, words]).join(" ");
    this.#done();
  }

  #mark() {
    for (const chip of this.querySelectorAll("[data-verdict]")) {
      chip.setAttribute("aria-pressed", String(new RegExp(`--verdict ${chip.dataset.verdict}\\b`).test(this.value)));
    }
    this.querySelector(".clear").hidden = !this.value;
  }

  #done() {
    this.#close();
    this.problem("");
    this.#mark();
    this.dispatchEvent(new Event("change"));
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#suggest(), WAIT_MS);
    this.#mark();
  }

  async #suggest() {
    const at = this.input.selectionStart;
    const text = this.input.value;
    const found = await ask("suggest", { text: text || " ", at: text ? at : 0 }).catch(() => ({ items: [] }));
    if (this.input.value !== text || document.activeElement !== this.input) return;
    this.#place = text ? found : { from: 0, to: 0 };
    this.#items = found.items;
    this.#at = -1;
    this.list.replaceChildren(...found.items.map((item, index) => html("li", {
      role: "option", id: `suggestion-${index}`, onmousedown: (event) => { event.preventDefault(); this.#take(index); },
    }, html("code", {}, item.text), html("span", {}, item.hint))));
    this.list.hidden = found.items.length === 0;
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
  }

  #take(index) {
    const { text } = this.#items[index];
    const { value } = this.input;
    const after = value.slice(this.#place.to);
    const before = `${value.slice(0, this.#place.from)}${text} `;
    this.input.value = before + after.trimStart();
    this.input.setSelectionRange(before.length, before.length);
    this.#close();
    this.#later();
  }

  #close() {
    this.list.hidden = true;
    this.#at = -1;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  #key(event) {
    const open = !this.list.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (!open) return this.#later();
      event.preventDefault();
      const { length } = this.#items;
      this.#at = (this.#at + (event.key === "ArrowDown" ? 1 : -1) + length) % length;
      [...this.list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === this.#at)));
      this.list.children[this.#at].scrollIntoView({ block: "nearest" });
      this.input.setAttribute("aria-activedescendant", `suggestion-${this.#at}`);
    } else if (event.key === "Tab" && open && this.#items.length && !event.shiftKey) {
      event.preventDefault();
      this.#take(Math.max(this.#at, 0));
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (open && this.#at >= 0) this.#take(this.#at);
      else this.#done();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      this.#close();
    }
    return undefined;
  }
}
