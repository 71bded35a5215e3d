// Dark or light; at first what the system says.
export class ThemeToggle extends HTMLElement {
  connectedCallback() {
    this.button = this.querySelector("button");
    this.button.addEventListener("click", () => this.#use(this.#now() === "dark" ? "light" : "dark"));
    this.#show();
  }

  #now() {
    return document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  }

  #use(theme) {
    document.documentElement.dataset.theme = theme;
    try { localStorage.setItem("flowscope-theme", theme); } catch { /* for this page only, then */ }
    this.#show();
  }

  #show() {
    const other = this.#now() === "dark" ? "light" : "dark";
    this.button.textContent = other === "light" ? "☀" : "☾";
    this.button.setAttribute("aria-label", `Use the ${other} theme`);
    this.button.title = `Use the ${other} theme`;
  }
}
