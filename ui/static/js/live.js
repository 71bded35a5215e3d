// The connection to the server: one WebSocket that comes back by itself and says where it stopped.
//
// In:  messages {type: "flows" | "map" | "time" | "state" | ...} (ui/live.py documents them).
// Out: the same as events of that name; `tell` sends what the person chose, again after each reconnect.
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5000;

export class Live extends EventTarget {
  #socket = null;
  #wait = FIRST_WAIT_MS;
  #wish = { type: "subscribe" };
  #cursor = null;
  #again = false;

  connect() {
    const address = new URL("api/live", document.baseURI);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    address.search = address.hash = "";
    this.#socket = new WebSocket(address);
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = (event) => this.#received(JSON.parse(event.data));
    this.#socket.onclose = (event) => this.#closed(event);
  }

  tell(change) {
    this.#wish = { ...this.#wish, ...change };
    this.#send(this.#wish);
  }

  // Something that is not to be said again after a reconnect.
  note(message) {
    this.#send(message);
  }

  #opened() {
    this.#wait = FIRST_WAIT_MS;
    this.dispatchEvent(new CustomEvent("opened", { detail: { again: this.#again } }));
    this.#again = true;
    this.#send({ ...this.#wish, cursor: this.#cursor });
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #received(message) {
    if (message.type === "flows") this.#cursor = message.cursor;
    this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
  }

  #closed(event) {
    const text = event.reason || "server gone, trying again; what is shown stays";
    this.dispatchEvent(new CustomEvent("state", { detail: { state: "lost", text } }));
    setTimeout(() => this.connect(), this.#wait);
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
  }
}
