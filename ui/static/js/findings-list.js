import { html } from "./dom.js";
import { count } from "./numbers.js";

// What looks wrong. Out: "narrow" {words} to see the flows behind it.
export class FindingsList extends HTMLElement {
  show(findings) {
    this.querySelector(".empty").hidden = findings.length > 0;
    this.querySelector("ul").replaceChildren(...findings.map((finding) => {
      const button = html("button", { type: "button", class: "small" }, "Show flows");
      button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("narrow", { detail: { words: finding.filter } })));
      return html("li", { class: finding.severity }, html("span", { class: "mark", "aria-hidden": "true" }, finding.severity === "bad" ? "✕" : "!"),
        html("div", {}, html("b", {}, finding.title), html("p", {}, finding.text)), html("span", { class: "number" }, `${count(finding.count)}×`), finding.filter && button);
    }));
  }
}
