"""Traffic that notices: one connection that must never break, or attempts that must never succeed.

In:        an address inside some pod's network.
Out:       what was seen, as JSON.
Elsewhere: witness.py runs it inside a pod.

Run inside a pod: `python prober.py hold|denied ADDRESS PORT`; goes on until SIGTERM, then prints what it saw as JSON.
`hold` prints a line of its own before, when it has its first answer.
Standard library only: it runs wherever Python does.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time

REQUEST = b"GET /public HTTP/1.1\r\nHost: echo\r\n\r\n"
PAUSE_S = 0.02
ANSWER_S = 10.0
"""A connection whose packets are only delayed must not count as lost."""
DENIED_S = 0.1

stopping = False


def stop(*_: object) -> None:
    """Told to end."""
    global stopping
    stopping = True


def hold(address: str, port: int) -> dict[str, object]:
    """Requests over one connection, for as long as it lives."""
    answers, slowest_s, error = 0, 0.0, ""
    with socket.create_connection((address, port), ANSWER_S) as connection:
        while not stopping and not error:
            begun = time.monotonic()
            try:
                connection.sendall(REQUEST)
                received = connection.recv(65536)
                error = "" if received.startswith(b"HTTP/1.1 200") else f"answer {received[:60]!r}"
            except OSError as failure:
                error = str(failure)
            answers += not error
            if answers == 1:
                print("answered", flush=True)
            slowest_s = max(slowest_s, time.monotonic() - begun)
            time.sleep(PAUSE_S)
    return {"answers": answers, "slowest_s": round(slowest_s, 3), "error": error}


def denied(address: str, port: int) -> dict[str, object]:
    """New connections, none of which may come about."""
    attempts = successes = 0
    while not stopping:
        attempts += 1
        try:
            socket.create_connection((address, port), DENIED_S).close()
        except OSError:
            continue
        successes += 1
    return {"attempts": attempts, "successes": successes}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    print(json.dumps({"hold": hold, "denied": denied}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))), flush=True)
