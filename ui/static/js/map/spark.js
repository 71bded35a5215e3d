import { html, svg } from "../dom.js";
import { count } from "../numbers.js";

const SIZE = { width: 180, height: 40 };

// The last minute of an arrow, beside the pointer.
export class Spark {
  constructor(owner) {
    this.words = html("p");
    this.plot = svg("svg", { ...SIZE, viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, "aria-hidden": "true" });
    this.box = html("div", { class: "spark", hidden: true }, this.words, this.plot, html("p", { class: "muted" }, "flows per second, last minute"));
    owner.append(this.box);
  }

  at(edge, words, x, y) {
    this.edge = edge;
    this.words.textContent = words;
    this.plot.replaceChildren();
    this.box.hidden = false;
    const { offsetWidth, offsetHeight, offsetParent } = this.box;
    this.box.style.left = `${Math.max(4, Math.min(x + 14, offsetParent.clientWidth - offsetWidth - 8))}px`;
    this.box.style.top = `${Math.max(4, Math.min(y + 14, offsetParent.clientHeight - offsetHeight - 8))}px`;
  }

  show({ edge, flows, dropped }) {
    if (edge !== this.edge) return;
    const most = Math.max(1, ...flows);
    const step = SIZE.width / flows.length;
    const bars = (series, name) => series.map((number, index) => number > 0 && svg("rect", {
      class: name, x: index * step, width: Math.max(step - 0.6, 0.8),
      y: SIZE.height * (1 - number / most), height: (SIZE.height * number) / most,
    }));
    this.plot.replaceChildren(...[...bars(flows, "forwarded"), ...bars(dropped, "dropped")].filter(Boolean));
    this.plot.setAttribute("aria-label", `at most ${count(most)} flows per second`);
  }

  hide() {
    this.edge = null;
    this.box.hidden = true;
  }
}
