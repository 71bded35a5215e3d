import { ConnectionState } from "./connection-state.js";
import { FlowTable } from "./flow-table.js";
import { Live } from "./live.js";
import { ServiceMap } from "./service-map.js";
import { VerdictFilter } from "./verdict-filter.js";

customElements.define("connection-state", ConnectionState);
customElements.define("flow-table", FlowTable);
customElements.define("service-map", ServiceMap);
customElements.define("verdict-filter", VerdictFilter);

const live = new Live();
const table = document.querySelector("flow-table");
const map = document.querySelector("service-map");
const state = document.querySelector("connection-state");
const filter = document.querySelector("verdict-filter");
const pause = document.querySelector("#pause");

live.addEventListener("flows", ({ detail }) => {
  if (detail.restart) table.clear();
  table.append(detail.rows, detail.missed);
});
live.addEventListener("map", ({ detail }) => map.show(detail));
live.addEventListener("state", ({ detail }) => state.show(detail));

filter.addEventListener("change", () => {
  table.clear();
  remember();
  live.tell({ verdicts: filter.value });
});

pause.addEventListener("click", () => setPaused(pause.getAttribute("aria-pressed") !== "true"));
document.addEventListener("keydown", (event) => {
  if (event.key === " " && event.target === document.body) {
    event.preventDefault();
    pause.click();
  }
});

function setPaused(paused) {
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Resume" : "Pause";
  live.tell({ paused });
}

// What is shown is in the address, so a reload or a shared link shows the same.
function remember() {
  const address = new URL(location.href);
  address.searchParams.delete("verdict");
  for (const word of filter.value) address.searchParams.append("verdict", word);
  history.replaceState(null, "", address);
}

filter.value = new URLSearchParams(location.search).getAll("verdict");
live.tell({ verdicts: filter.value });
live.connect();
