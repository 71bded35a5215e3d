"""A folder of recorded events, decoded the way live events are: what `flowscope debug decode` prints.

In:        lines of index.jsonl, bytes of events.bin, object of getters.json; perhaps lines of expected.jsonl for times.
Out:       one object per line of the index, in the form of expected.jsonl.
Elsewhere: the files are read by the command; their form is described in golden/README.md.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int32Value

from model.decode.decoder import Decoded, Decoder
from model.decode.errors import DecodeError, ErrorClass
from model.encode import Encoder
from model.events import EventBatch
from model.knowledge import Knowledge
from model.layouts import MessageType
from model.row import Kind, Rows
from model.tables import Node, Tables
from model.text.times import parse_rfc3339
from model.text.tojson import to_json
from proto.flow import flow_pb2

Entry = Mapping[str, Any]

FIRST_NS: Final = 1_768_471_200_000_123_456
"""2026-01-15T10:00:00.000123456Z, the time of the first event where nothing tells another."""
STEP_NS: Final = 1_000_000

_RESULTS: Final[dict[Kind, tuple[str, type[Message]]]] = {
    Kind.FLOW: ("flow", flow_pb2.Flow),
    Kind.LOST: ("lost_event", flow_pb2.LostEvent),
    Kind.AGENT: ("agent_event", flow_pb2.AgentEvent),
    Kind.DEBUG: ("debug_event", flow_pb2.DebugEvent),
}


def decode_folder(
    index: Iterable[Entry], data: bytes, state: Mapping[str, Any], expected: Iterable[Entry] = ()
) -> Iterator[dict[str, Any]]:
    """What each entry of the index becomes. One decoder sees them all, in their order."""
    return _Folder(data, Knowledge.from_json(state), expected).lines(index)


class _Folder:
    def __init__(self, data: bytes, knowledge: Knowledge, expected: Iterable[Entry]) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self._times = {line["i"]: line["event_time"] for line in expected if line.get("event_time")}
        self._tables = Tables()
        # Labels of the node and a version are added by a server; the form of expected.jsonl is without.
        node = self._tables.nodes.intern(Node(knowledge.node_name))
        self._decoder = Decoder(self._tables, knowledge, node)
        self._encoder = Encoder(self._tables)

    def lines(self, index: Iterable[Entry]) -> Iterator[dict[str, Any]]:
        for number, entry in enumerate(index):
            line: dict[str, Any] = {"i": entry.get("i", number), "name": entry.get("name", "")}
            try:
                time = entry.get("event_time") or self._times.get(line["i"])
                ts_ns = _nanoseconds(time) if time else FIRST_NS + number * STEP_NS
                rows = self._rows(entry, ts_ns)
                rows["seq"] = number
                line |= self._shown(rows, ts_ns)
            except DecodeError as error:
                line |= {"result": "error", "error": str(error), "error_class": str(error.error_class)}
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                text = f"index entry {number}: {type(error).__name__}: {error}"
                line |= {"result": "error", "error": text, "error_class": str(ErrorClass.DECODE_ERROR)}
            yield dict(sorted(line.items()))

    def _rows(self, entry: Entry, ts_ns: int) -> Rows:
        """The one row of an entry. Raises: DecodeError."""
        kind = entry.get("kind")
        decode = getattr(self, f"_{kind}", None) if kind in ("perf", "accesslog", "agent", "lost") else None
        if decode is None:
            raise DecodeError(ErrorClass.UNKNOWN_EVENT_TYPE, f"no event is of kind {kind}")
        decoded: Decoded = decode(entry, ts_ns)
        if len(decoded.rows):
            return decoded.rows
        if kind == "perf":
            # On the way that events take errors are counted, not told. Ask again for the text.
            self._decoder.decode_event(self._record(entry), cpu=int(entry.get("cpu", 0)), ts_ns=ts_ns)
        error_class = next(iter(decoded.errors))
        raise DecodeError(ErrorClass(error_class), error_class.replace("_", " "))

    def _record(self, entry: Entry) -> bytes:
        start, length = int(entry["offset"]), int(entry["length"])
        if start < 0 or length < 0 or start + length > len(self._data):
            raise ValueError(f"bytes {start} to {start + length} of {len(self._data)}")
        return self._data[start : start + length].tobytes()

    def _perf(self, entry: Entry, ts_ns: int) -> Decoded:
        record = self._record(entry)
        return self._decoder.decode(
            EventBatch(
                data=np.frombuffer(record, np.uint8),
                offsets=np.zeros(1, np.int64),
                lengths=np.array([len(record)], np.int64),
                cpus=np.array([entry.get("cpu", 0)], np.uint16),
                times_ns=np.array([ts_ns], np.int64),
            )
        )

    def _accesslog(self, entry: Entry, ts_ns: int) -> Decoded:
        return self._decoder.decode_accesslog([entry["record"]], [ts_ns])

    def _agent(self, entry: Entry, ts_ns: int) -> Decoded:
        if entry.get("event_type") not in (MessageType.AGENT, MessageType.ACCESS_LOG):
            raise DecodeError(ErrorClass.UNKNOWN_EVENT_TYPE, f"unknown event type {entry.get('event_type')}")
        if entry["event_type"] == MessageType.ACCESS_LOG or "notification" not in entry:
            raise DecodeError(ErrorClass.INVALID_AGENT_MESSAGE_TYPE, "invalid agent message type")
        record = {
            "type": entry["notify_type"],
            "message": entry["notification"],
            "shape": entry.get("notification_go_type"),
        }
        return self._decoder.decode_agent([record], [ts_ns])

    def _lost(self, entry: Entry, ts_ns: int) -> Decoded:
        lost = entry["lost"]
        event = flow_pb2.LostEvent(source=lost.get("source", 0), num_events_lost=lost.get("num_lost_events", 0))
        if lost.get("cpu") is not None:
            event.cpu.CopyFrom(Int32Value(value=lost["cpu"]))
        for name in ("first", "last"):
            if lost.get(name):
                seconds, nanos = parse_rfc3339(lost[name])
                getattr(event, name).CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
        return Decoded(self._decoder.lost_events(event, ts_ns=ts_ns))

    def _shown(self, rows: Rows, ts_ns: int) -> dict[str, Any]:
        result, message_class = _RESULTS[Kind(int(rows["kind"][0]))]
        message: Message
        if result == "flow":
            message = self._encoder.flows(rows)[0]
        else:
            message = message_class.FromString(self._tables.aux[int(rows["aux"][0])] or b"")
        return {
            "result": result,
            "event_time": _rfc3339(ts_ns),
            "json": json.loads(to_json(message)),
            "pb": b64encode(message.SerializeToString(deterministic=True)).decode(),
        }


def _nanoseconds(text: str) -> int:
    seconds, nanos = parse_rfc3339(text)
    return seconds * 1_000_000_000 + nanos


def _rfc3339(ts_ns: int) -> str:
    return Timestamp(seconds=ts_ns // 1_000_000_000, nanos=ts_ns % 1_000_000_000).ToJsonString()
