import { html, svg } from "./dom.js";
import { count, milliseconds, percent } from "./numbers.js";

// Requests by route, with their answers and latencies. Out: "choose" {id}.
export class RequestsView extends HTMLElement {
  show({ routes, slowest, failing, bin_ms }) {
    this.classList.toggle("none", routes.length === 0);
    this.querySelector(".routes tbody").replaceChildren(...routes.map((route) => html("tr", {},
      html("td", {}, route.target), html("td", { class: "method" }, route.method), html("td", { title: route.path, class: "path" }, route.path),
      html("td", { class: "number" }, count(route.count)), html("td", { class: route.bad ? "number bad" : "number" }, route.bad ? percent(route.bad) : ""),
      html("td", {}, Object.entries(route.codes).map(([code, number]) => html("span", { class: `code c${code[0]}` }, `${code} ×${count(number)}`))),
      html("td", { class: "number" }, route.p50 ? milliseconds(route.p50) : ""), html("td", { class: "number" }, route.p99 ? milliseconds(route.p99) : ""),
      html("td", {}, histogram(route.bins, bin_ms)))));
    for (const [name, list] of [["slowest", slowest], ["failing", failing]]) {
      this.querySelector(`.${name} ol`).replaceChildren(...list.map((one) => this.#one(one)));
    }
  }

  #one(one) {
    const button = html("button", { type: "button" }, html("span", { class: `code c${one.code[0]}` }, one.code), ` ${one.what} `, html("span", { class: "muted" }, `${one.target}${one.ms ? ` · ${milliseconds(one.ms)}` : ""}`));
    button.addEventListener("click", () => one.id && this.dispatchEvent(new CustomEvent("choose", { detail: { id: one.id } })));
    return html("li", {}, button);
  }
}

function histogram(bins, binMs) {
  const most = Math.max(1, ...bins);
  const drawn = svg("svg", { class: "histogram", viewBox: `0 0 ${bins.length * 7} 18`, role: "img", "aria-label": bins.map((number, index) => (number ? `up to ${milliseconds(binMs[index])}: ${number}` : "")).filter(Boolean).join(", ") });
  bins.forEach((number, index) => number && drawn.append(svg("rect", { x: index * 7, width: 6, y: 18 - (18 * number) / most, height: (18 * number) / most },
    svg("title", {}, `up to ${milliseconds(binMs[index])}: ${number}`))));
  return drawn;
}
