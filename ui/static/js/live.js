// The connection to the server: one WebSocket that comes back by itself and says where it stopped.
//
// In:  messages {type: "flows" | "map" | "state", ...} (ui/live.py documents them).
// Out: the same as events of that name; `tell` sends what the person chose, again after each reconnect.
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5000;

export class Live extends EventTarget {
  #socket = null;
  #wait = FIRST_WAIT_MS;
  #wish = { type: "subscribe", verdicts: [], paused: false };
  #cursor = null;

  connect() {
    const address = new URL("api/live", document.baseURI);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    address.search = location.search; // carries the login token where there is one
    this.#socket = new WebSocket(address);
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = (event) => this.#received(JSON.parse(event.data));
    this.#socket.onclose = () => this.#closed();
  }

  tell(change) {
    this.#wish = { ...this.#wish, ...change };
    this.#send();
  }

  #opened() {
    this.#wait = FIRST_WAIT_MS;
    this.#send();
  }

  #send() {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.#socket.send(JSON.stringify({ ...this.#wish, cursor: this.#cursor }));
    }
  }

  #received(message) {
    if (message.type === "flows") this.#cursor = message.cursor;
    this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
  }

  #closed() {
    this.dispatchEvent(new CustomEvent("state", { detail: { state: "lost", text: "server gone, trying again" } }));
    setTimeout(() => this.connect(), this.#wait);
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
  }
}
