// Whether what is shown is the present, in words.
export class ConnectionState extends HTMLElement {
  show({ state, text, lost }) {
    this.querySelector(".dot").dataset.state = state;
    this.querySelector(".text").textContent = text;
    this.title = lost ? `${lost.toLocaleString("en")} events lost since the start; see Health` : text;
    this.classList.toggle("lossy", Boolean(lost));
  }
}
