"""A stream of flows as text, record by record.

In:        GetFlowsResponse messages: flows, lost events, node status.
Out:       chunks of text for stdout and stderr, in the chosen output form.
Elsewhere: parts.py words a flow; rows.py does whole batches of rows; table.py aligns; events.py has the other events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from model.text.parts import FlowStyle, enum_name, parts_of
from model.text.quote import quote
from model.text.style import Style
from model.text.table import align
from model.text.times import NOT_A_TIME, TimeFormat, time_format
from model.text.tojson import to_json
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from proto.relay import relay_pb2

SEPARATOR: Final = "------------"
_NODE_NAMES_CUT_OFF: Final = 50

SHOWN_FIELDS: Final = (
    "time",
    "verdict",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "Type",
    "node_name",
    "l7",
    "event_type",
    "source_service",
    "destination_service",
    "is_reply",
    "Summary",
    "ip_trace_id",
)
"""What a client asks a server for when the output is not JSON: Hubble's default field mask, in its order."""


class Output(Enum):
    """The form of the text."""

    COMPACT = "compact"
    DICT = "dict"
    TABLE = "table"
    JSON = "json"
    LEGACY_JSON = "legacy-json"
    """Without the response around the record."""


@dataclass(frozen=True, slots=True)
class Look:
    """Everything about how records are shown."""

    output: Output = Output.COMPACT
    times: TimeFormat = field(default_factory=lambda: time_format("StampMilli"))
    node_names: bool = False
    flows: FlowStyle = field(default_factory=FlowStyle)
    all_node_status: bool = False
    """Also the states that are no trouble."""
    silent: bool = False
    """No node status at all."""

    @property
    def style(self) -> Style:
        """Colours. A table has none: they would count as width."""
        return self.flows.style


@dataclass(frozen=True, slots=True)
class Chunk:
    """Text for one of the two streams."""

    text: str
    error: bool = False


class FlowText:
    """Turns responses into text. One per stream: it remembers whether something was printed already."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.started = False
        """A record was printed, so the next one in dict form is preceded by a separator."""
        self._table: list[str] = []

    def one(self, response: observer_pb2.GetFlowsResponse) -> Chunk | None:
        """The text of one response; None when it shows nothing (or later, in a table)."""
        member = response.WhichOneof("response_types")
        if member == "flow":
            return self._record(flow_text(response, self.look))
        if member == "lost_events":
            return self._record(lost_text(response, self.look))
        if member == "node_status":
            return self._node_status(response)
        return None

    def many(self, responses: Iterable[observer_pb2.GetFlowsResponse]) -> list[Chunk]:
        """The text of many responses, neighbours of one stream joined."""
        return join(chunk for response in responses if (chunk := self.one(response)) is not None)

    def records(self, text: str) -> Chunk | None:
        """Take the text of records that was made elsewhere (rows.py), without the first separator."""
        return self._record(text) if text else None

    def finish(self) -> str:
        """What is left when the stream has ended, for whatever reason: the table."""
        if not self._table:
            return ""
        node = "NODE\t" if self.look.node_names else ""
        header = f"TIMESTAMP\t{node}SOURCE\tDESTINATION\tTYPE\tVERDICT\tSUMMARY\n"
        lines, self._table = self._table, []
        return align(header + "".join(lines))

    def _record(self, text: str) -> Chunk | None:
        look = self.look
        if look.output is Output.TABLE:
            self._table.append(look.style.harmless(text))
            return None
        if look.output in (Output.JSON, Output.LEGACY_JSON):
            return Chunk(text)
        if look.output is Output.DICT and self.started:
            text = f"{SEPARATOR}\n{text}"
        self.started = True
        return Chunk(look.style.harmless(text))

    def _node_status(self, response: observer_pb2.GetFlowsResponse) -> Chunk | None:
        look = self.look
        status = response.node_status
        trouble = status.state_change in (relay_pb2.NODE_ERROR, relay_pb2.NODE_UNAVAILABLE)
        if look.silent or not (trouble or look.all_node_status) or look.output is Output.LEGACY_JSON:
            return None
        if look.output is Output.JSON:
            return Chunk(to_json(response) + "\n", error=True)
        text = node_status_text(response, look)
        if look.output is Output.DICT:
            if self.started:
                text = f"{SEPARATOR}\n{text}"
            self.started = True
        return Chunk(look.style.harmless(text), error=True)


def join(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Join neighbours that go to the same stream."""
    joined: list[tuple[bool, list[str]]] = []
    for chunk in chunks:
        if not joined or joined[-1][0] is not chunk.error:
            joined.append((chunk.error, []))
        joined[-1][1].append(chunk.text)
    return [Chunk("".join(texts), error) for error, texts in joined]


def timestamp_text(holder: object, name: str, times: TimeFormat) -> str:
    """The time in a message's field; `N/A` when it is absent."""
    if not holder.HasField(name):  # type: ignore[attr-defined]
        return NOT_A_TIME
    stamp: Timestamp = getattr(holder, name)
    return times.one(stamp.seconds, stamp.nanos)


def flow_text(response: observer_pb2.GetFlowsResponse, look: Look) -> str:
    """One flow."""
    flow = response.flow
    if look.output is Output.JSON:
        return to_json(response) + "\n"
    if look.output is Output.LEGACY_JSON:
        return to_json(flow) + "\n"
    time = timestamp_text(flow, "time", look.times)
    parts = parts_of(flow, look.flows)
    if look.output is Output.COMPACT:
        ends = (
            (parts.source, parts.source_identity),
            (parts.destination, parts.destination_identity),
        )
        # An answer is shown the other way round, so that whoever asked stands on the left.
        left, right = reversed(ends) if parts.arrow == "<-" else ends
        node = f" [{flow.node_name}]" if look.node_names else ""
        return (
            f"{time}{node}: {left[0]} {left[1]} {parts.arrow} {right[0]} {right[1]} "
            f"{parts.type} {parts.verdict} ({parts.summary})\n"
        )
    if look.output is Output.DICT:
        node = f"       NODE: {flow.node_name}\n" if look.node_names else ""
        return (
            f"  TIMESTAMP: {time}\n{node}     SOURCE: {parts.source}\nDESTINATION: {parts.destination}\n"
            f"       TYPE: {parts.type}\n    VERDICT: {parts.verdict}\n    SUMMARY: {parts.summary}\n"
        )
    node = f"{flow.node_name}\t" if look.node_names else ""
    return f"{time}\t{node}{parts.source}\t{parts.destination}\t{parts.type}\t{parts.verdict}\t{parts.summary}\n"


def lost_text(response: observer_pb2.GetFlowsResponse, look: Look) -> str:
    """One gap: how many events are missing here."""
    lost = response.lost_events
    if look.output is Output.JSON:
        return to_json(response) + "\n"
    if look.output is Output.LEGACY_JSON:
        return to_json(lost) + "\n"
    time = timestamp_text(response, "time", look.times)
    source = enum_name(flow_pb2.LostEventSource, lost.source)
    cpu, count = lost.cpu.value, lost.num_events_lost
    span = ""
    if lost.HasField("first") and lost.HasField("last"):
        first, last = (timestamp_text(lost, name, look.times) for name in ("first", "last"))
        span = f" (first: {first}, last: {last})"
    if look.output is Output.COMPACT:
        return f"{time} EVENTS LOST: {source} CPU({cpu}) {count}{span}\n"
    summary = f"CPU({cpu}) - {count}{span}"
    node = response.node_name or "-"
    if look.output is Output.DICT:
        node = f"       NODE: {node}\n" if look.node_names else ""
        return (
            f"  TIMESTAMP: {time}\n{node}     SOURCE: {source}\n       TYPE: EVENTS LOST\n"
            f"    VERDICT: -\n    SUMMARY: {summary}\n"
        )
    node = f"{node}\t" if look.node_names else ""
    return f"{time}\t{node}{source}\t-\tEVENTS LOST\t-\t{summary}\n"


def node_status_text(response: observer_pb2.GetFlowsResponse, look: Look) -> str:
    """What a relay says about its nodes, in words."""
    status = response.node_status
    time = timestamp_text(response, "time", look.times)
    names = cut_off(status.node_names)
    count = len(status.node_names)
    state = status.state_change
    if look.output is Output.DICT:
        message = quote(status.message) if status.message else "N/A"
        return (
            f"  TIMESTAMP: {time}\n      STATE: {enum_name(relay_pb2.NodeState, state)}\n"
            f"      NODES: {names}\n    MESSAGE: {message}\n"
        )
    prefix = f"{time} [{response.node_name}]: "
    if state == relay_pb2.NODE_CONNECTED:
        return f"{prefix}Receiving flows from {count} nodes: {names}\n"
    if state == relay_pb2.NODE_UNAVAILABLE:
        return f"{prefix}{count} nodes are unavailable: {names}\n"
    if state == relay_pb2.NODE_GONE:
        return f"{prefix}{count} nodes removed from cluster: {names}\n"
    if state == relay_pb2.NODE_ERROR:
        return f"{prefix}Error {quote(status.message)} on {count} nodes: {names}\n"
    return f"{prefix}unknown node status event: {to_json(status)}\n"


def cut_off(names: Sequence[str]) -> str:
    """Names joined, cut where the line would get long; the first name always stays."""
    length = 0
    for index, name in enumerate(names):
        length += len(name.encode()) + len(", ")
        if length > _NODE_NAMES_CUT_OFF and index > 0:
            return ", ".join(names[:index]) + f" (and {len(names) - index} more)"
    return ", ".join(names)
