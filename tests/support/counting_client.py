"""A client that only counts: as little work per message as Python allows, so that the server is what is measured.

In:        an address, a method, a request.
Out:       the word "streaming" when the call has begun; then how many messages came, how many events were reported
           lost, how late a sample of them was: one JSON line.
Elsewhere: rpc/client.py is the real client.

It speaks just enough HTTP/2: windows as large as they get, acknowledged in large steps.
Run it as a process of its own: python -m tests.support.counting_client unix:///x.sock --seconds 3
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import json_format
from hpack import Decoder, Encoder

from proto.flow import flow_pb2
from proto.flowscope import columns_pb2
from proto.observer import observer_pb2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
LARGEST_WINDOW = 2**31 - 1
ACKNOWLEDGE_EVERY = 2**28
SHORT = 128
"""Bytes; messages below it may be lost events. Flows are longer, unless a mask cuts them."""
FLOWS = "/observer.Observer/GetFlows"
COLUMNS = "/flowscope.Columns/GetFlows"


class Connection:
    """One call on one connection."""

    def __init__(self, address: str, method: str, request: bytes, frame_size: int) -> None:
        if address.startswith("unix://"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.connect(address.removeprefix("unix://"))
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host, int(port)))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HIHI", 4, LARGEST_WINDOW, 5, frame_size)
        headers = Encoder().encode(
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", method),
                (":authority", "localhost"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ]
        )
        self._send(PREFACE)
        self._send(_frame(SETTINGS, 0, 0, settings))
        self._send(_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - 65535)))
        self._send(_frame(HEADERS, END_HEADERS, 1, headers))
        self._send(_frame(DATA, END_STREAM, 1, struct.pack(">BI", 0, len(request)) + request))
        self._unacknowledged = 0
        self.status: dict[str, str] = {}

    def payloads(self, deadline: Callable[[], float]) -> Iterator[memoryview]:
        """Content of DATA frames, until the stream ends or time is up."""
        decoder = Decoder()
        buffer = bytearray(4 * 2**20)
        view = memoryview(buffer)
        start = end = 0
        while True:
            left = deadline() - time.monotonic()
            if left <= 0:
                return
            self._socket.settimeout(left)
            try:
                count = self._socket.recv_into(view[end:])
            except TimeoutError:
                return
            if not count:
                return
            end += count
            while end - start >= 9:
                length = int.from_bytes(view[start : start + 3], "big")
                kind, flags = buffer[start + 3], buffer[start + 4]
                if end - start < 9 + length:
                    break
                if kind == DATA:
                    yield view[start + 9 : start + 9 + length]
                    self._acknowledge(length)
                else:
                    payload = bytes(view[start + 9 : start + 9 + length])
                    if kind == HEADERS:
                        if not self.status:
                            print("streaming", flush=True)
                        self.status.update((str(name), str(value)) for name, value in decoder.decode(payload))
                    elif kind == SETTINGS and not flags & ACK:
                        self._send(_frame(SETTINGS, ACK, 0, b""))
                    elif kind == PING and not flags & ACK:
                        self._send(_frame(PING, ACK, 0, payload))
                    if kind in (RESET, GOAWAY) or (kind == HEADERS and flags & END_STREAM):
                        return
                start += 9 + length
            rest = end - start
            view[:rest] = bytes(view[start:end])
            start, end = 0, rest

    def close(self) -> None:
        self._socket.close()

    def _acknowledge(self, count: int) -> None:
        self._unacknowledged += count
        if self._unacknowledged >= ACKNOWLEDGE_EVERY:
            increment = struct.pack(">I", self._unacknowledged)
            self._send(_frame(WINDOW_UPDATE, 0, 0, increment) + _frame(WINDOW_UPDATE, 0, 1, increment))
            self._unacknowledged = 0

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


class Counter:
    """Counts the messages of a stream of payloads."""

    def __init__(self, columns: bool, sample: int) -> None:
        self.messages = 0
        self.flows = 0
        self.lost: dict[str, int] = {}
        self.lost_messages = 0
        self.bytes = 0
        self.latencies_ns: list[int] = []
        self.first_s = self.last_s = 0.0
        self._columns = columns
        if columns:
            import pyarrow.ipc  # noqa: F401 (takes a third of a second, which is not the server's)
        self._sample = sample
        self._rest = b""

    def take(self, payload: memoryview) -> None:
        """The next bytes of the stream."""
        now_ns = time.time_ns() if self._sample else 0
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        self.bytes += len(payload)
        data: Any = self._rest + bytes(payload) if self._rest else payload
        unpack = struct.Struct(">BI").unpack_from
        at, size, messages, last = 0, len(data), self.messages, len(data) - 5
        columns, sample = self._columns, self._sample
        while at <= last:
            end = at + 5 + unpack(data, at)[1]
            if end > size:
                break
            messages += 1
            if columns:
                self._count_rows(bytes(data[at + 5 : end]))
            elif end - at < SHORT:
                self._count_short(bytes(data[at + 5 : end]))
            elif sample and messages % sample == 0:
                self._note_time(bytes(data[at + 5 : end]), now_ns)
            at = end
        self._rest = bytes(data[at:])
        self.messages = messages

    def result(self, connection: Connection) -> dict[str, object]:
        """All figures."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        late = sorted(self.latencies_ns)
        parts = (("median", 0.5), ("p99", 0.99), ("max", 1.0)) if late else ()
        return {
            "messages": self.messages,
            "flows": self.flows if self._columns else self.messages - self.lost_messages,
            "lost": self.lost,
            "bytes": self.bytes,
            "seconds": self.last_s - self.first_s,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "status": connection.status.get("grpc-status", ""),
            "message": connection.status.get("grpc-message", ""),
            "late_ms": {name: late[min(int(len(late) * part), len(late) - 1)] / 1e6 for name, part in parts},
            "sampled": len(late),
        }

    def _count_short(self, message: bytes) -> None:
        response = observer_pb2.GetFlowsResponse.FromString(message)
        if not response.HasField("lost_events"):
            return
        event = response.lost_events
        name = flow_pb2.LostEventSource.Name(event.source)
        self.lost[name] = self.lost.get(name, 0) + event.num_events_lost
        self.lost_messages += 1

    def _count_rows(self, message: bytes) -> None:
        import pyarrow.ipc

        batch = columns_pb2.ColumnsResponse.FromString(message).batch
        if not batch:
            return  # a relay's news of nodes
        with pyarrow.ipc.open_stream(batch) as reader:
            self.flows += sum(one.num_rows for one in reader)

    def _note_time(self, message: bytes, now_ns: int) -> None:
        time_of = observer_pb2.GetFlowsResponse.FromString(message).time
        self.latencies_ns.append(now_ns - time_of.seconds * 1_000_000_000 - time_of.nanos)


def main() -> int:
    """Count until the stream ends, `--flows` came, or time is up; print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--columns", action="store_true")
    parser.add_argument("--request", default="{}", help="GetFlowsRequest as JSON")
    parser.add_argument("--seconds", type=float, default=10.0, help="from the first byte on")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds to wait for the first byte")
    parser.add_argument("--quiet", type=float, default=3600.0, help="end after so many seconds without a byte")
    parser.add_argument("--flows", type=int, default=0)
    parser.add_argument("--sample", type=int, default=0, help="take the time of every n-th message")
    parser.add_argument("--frame-size", type=int, default=2**20)
    options = parser.parse_args()
    request = json_format.Parse(options.request, observer_pb2.GetFlowsRequest()).SerializeToString()
    connection = Connection(options.address, COLUMNS if options.columns else FLOWS, request, options.frame_size)
    counter = Counter(options.columns, options.sample)
    begun = time.monotonic()

    def deadline() -> float:
        if not counter.first_s:
            return float(begun + options.patience)
        return float(min(counter.first_s + options.seconds, counter.last_s + options.quiet))

    for payload in connection.payloads(deadline):
        counter.take(payload)
        if options.flows and counter.messages >= options.flows:
            break
    print(json.dumps(counter.result(connection)), flush=True)
    connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
