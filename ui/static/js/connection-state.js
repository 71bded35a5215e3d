export class ConnectionState extends HTMLElement {
  show({ state, text }) {
    this.querySelector(".dot").dataset.state = state;
    this.querySelector(".text").textContent = text;
  }
}
