import { ask } from "./api.js";
import { html } from "./dom.js";
import { clock, count } from "./numbers.js";

// Why nothing is shown, and what to do: the relay, the span, or which condition removed how many flows.
// Out: "range" {range: [ms, ms]}, a minute with flows in it.
export class EmptyHelp extends HTMLElement {
  async explain({ scope, state, filter, live, held }) {
    if (state?.state === "live" && live && held) return this.#quiet(scope);
    const { stages } = await ask("funnel", scope).catch(() => ({ stages: [] }));
    const [all, ...rest] = stages.map((stage) => stage.left);
    const age = state?.newest ? Math.round(Date.now() / 1000 - state.newest / 1e6) : null;
    const head = state?.state !== "live" ? state?.text ?? "Connecting." : !all && live ? "No flows yet." : all ? "No flow passes the filter." : "No flows in this span.";
    const hint = state?.state !== "live" ? "Flows appear when the relay is back; nothing needs to be done here."
      : !all && live ? (age ? `The newest flow is ${count(age)} s old. Is there traffic, and do the nodes run an observer? See Health.` : "Is there traffic, and do the nodes run an observer? See Health. What hosts without pods send and get is reported by agents with --aggregation none only.")
      : rest.length ? "Take away the condition that leaves none." : "Go back to live, or choose a span with bars in it.";
    this.replaceChildren(html("h3", {}, head), html("p", {}, hint));
    if (filter && stages.length > 1) {
      this.append(html("ol", { class: "funnel" }, ...stages.map((stage, index) => html("li", { class: stage.left ? "" : "none" },
        html("code", {}, stage.condition), html("span", { class: "number" }, `${count(stage.left)} left`),
        index > 0 && html("span", { class: "muted" }, `−${count(stages[index - 1].left - stage.left)}`)))));
    }
    return undefined;
  }

  // The table goes further back than the map.
  async #quiet(scope) {
    const rows = await ask("flows", { ...scope, columns: "uuid", limit: 1 }).then((answer) => answer.rows, () => []);
    const newest = rows.length ? await ask("flow", { id: rows[0][1] }).catch(() => null) : null;
    const button = newest && html("button", { type: "button", class: "small" }, "Show the minute around it");
    button?.addEventListener("click", () => this.dispatchEvent(new CustomEvent("range", { detail: { range: [newest.ms - 30_000, newest.ms + 30_000] } })));
    this.replaceChildren(html("h3", {}, "Nothing in the last minute."),
      html("p", {}, newest ? `The map shows the last minute; the newest flow in the table is of ${clock(newest.ms)} UTC.` : "The map shows the last minute; the table goes further back."),
      ...(button ? [html("p", { class: "act" }, button)] : []));
  }
}
