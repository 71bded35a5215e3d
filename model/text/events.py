"""Agent and debug events as text.

In:        GetAgentEventsResponse and GetDebugEventsResponse messages.
Out:       text in the chosen output form.
Elsewhere: flows.py for flows; how it looks is a Look of flows.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.wrappers_pb2 import Int32Value, UInt32Value

from model.text.flows import SEPARATOR, Look, Output, timestamp_text
from model.text.parts import enum_name
from model.text.table import align
from model.text.times import TimeFormat
from model.text.tojson import to_json
from proto.flow import flow_pb2
from proto.observer import observer_pb2


class EventText:
    """Turns agent and debug events into text. One per stream."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self._started = False
        self._table: list[str] = []

    def agent(self, response: observer_pb2.GetAgentEventsResponse) -> str:
        """One agent event; empty in a table, which comes at the end."""
        event = response.agent_event
        if self.look.output in (Output.JSON, Output.LEGACY_JSON):
            return to_json(response if self.look.output is Output.JSON else event) + "\n"
        time = timestamp_text(response, "time", self.look.times)
        kind = enum_name(flow_pb2.AgentEventType, event.type)
        details = agent_details(event, self.look.times)
        if self.look.output is Output.COMPACT:
            return self._print(f"{time}{self._node(response.node_name)}: {kind} ({details})\n")
        if self.look.output is Output.DICT:
            return self._print_dict(time, response.node_name, (("TYPE", kind), ("DETAILS", details)))
        return self._print_row("TYPE\tDETAILS\n", time, response.node_name, f"{kind}\t{details}\n")

    def debug(self, response: observer_pb2.GetDebugEventsResponse) -> str:
        """One debug event; empty in a table, which comes at the end."""
        event = response.debug_event
        if self.look.output in (Output.JSON, Output.LEGACY_JSON):
            return to_json(response if self.look.output is Output.JSON else event) + "\n"
        time = timestamp_text(response, "time", self.look.times)
        kind = enum_name(flow_pb2.DebugEventType, event.type)
        source = source_text(event)
        mark = hex_text(event.hash if event.HasField("hash") else None)
        cpu = cpu_text(event.cpu if event.HasField("cpu") else None)
        if self.look.output is Output.COMPACT:
            node = self._node(response.node_name)
            return self._print(f"{time}{node}: {source} {kind} MARK: {mark} CPU: {cpu} ({event.message})\n")
        if self.look.output is Output.DICT:
            pairs = (("TYPE", kind), ("FROM", source), ("MARK", mark), ("CPU", cpu), ("MESSAGE", event.message))
            return self._print_dict(time, response.node_name, pairs)
        cells = f"{source}\t\t{kind}\t{cpu} {mark}\t{event.message}\n"
        return self._print_row("FROM\t\tTYPE\tCPU/MARK\tMESSAGE\n", time, response.node_name, cells)

    def finish(self) -> str:
        """The table, when the stream has ended."""
        lines, self._table = self._table, []
        return align("".join(lines)) if lines else ""

    def _node(self, name: str) -> str:
        return f" [{name}]" if self.look.node_names else ""

    def _print(self, text: str) -> str:
        return self.look.style.harmless(text)

    def _print_dict(self, time: str, node: str, pairs: tuple[tuple[str, str], ...]) -> str:
        # The separator has no line end of its own here, unlike between flows.
        text = SEPARATOR if self._started else ""
        self._started = True
        if self.look.node_names:
            pairs = (("NODE", node), *pairs)
        return self._print(text + "".join(f"{key:>11}: {value}\n" for key, value in (("TIMESTAMP", time), *pairs)))

    def _print_row(self, titles: str, time: str, node: str, cells: str) -> str:
        if not self._table:
            self._table.append("TIMESTAMP\t" + ("NODE\t" if self.look.node_names else "") + titles)
        self._table.append(self._print(f"{time}\t" + (f"{node}\t" if self.look.node_names else "") + cells))
        return ""


def agent_details(event: flow_pb2.AgentEvent, times: TimeFormat) -> str:
    """What happened, in words."""
    member = event.WhichOneof("notification")
    write = _DETAILS.get((event.type, member or ""))
    return "UNKNOWN" if write is None else write(event, times)


def _unknown(event: flow_pb2.AgentEvent, _times: TimeFormat) -> str:
    return f"type: {event.unknown.type}, notification: {event.unknown.notification}"


def _start(event: flow_pb2.AgentEvent, times: TimeFormat) -> str:
    return f"start time: {timestamp_text(event.agent_start, 'time', times)}"


def _policy(event: flow_pb2.AgentEvent, _times: TimeFormat) -> str:
    update = event.policy_update
    return f"labels: [{','.join(update.labels)}], revision: {update.revision}, count: {update.rule_count}"


def _regenerate(event: flow_pb2.AgentEvent, _times: TimeFormat) -> str:
    update = event.endpoint_regenerate
    return f"id: {update.id}, labels: [{','.join(update.labels)}]" + _named("error", update.error)


def _endpoint(event: flow_pb2.AgentEvent, _times: TimeFormat) -> str:
    update = event.endpoint_update
    return f"id: {update.id}" + _named("namespace", update.namespace) + _named("pod name", update.pod_name)


def _ipcache(event: flow_pb2.AgentEvent, _times: TimeFormat) -> str:
    update = event.ipcache_update
    old = f", old identity: {update.old_identity.value}" if update.HasField("old_identity") else ""
    return (
        f"cidr: {update.cidr}, identity: {update.identity}{old}"
        + _named("host ip", update.host_ip)
        + _named("old host ip", update.old_host_ip)
        + f", encrypt key: {update.encrypt_key}"
    )


def _service(event: flow_pb2.AgentEvent, _times: TimeFormat) -> str:
    update = event.service_upsert
    text = f"id: {update.id}"
    if update.HasField("frontend_address"):
        text += f", frontend: {_address(update.frontend_address)}"
    if update.backend_addresses:
        text += f", backends: [{','.join(map(_address, update.backend_addresses))}]"
    return (
        text
        + _named("type", update.type)
        + _named("traffic policy", update.traffic_policy)
        + _named("namespace", update.namespace)
        + _named("name", update.name)
    )


def _service_gone(event: flow_pb2.AgentEvent, _times: TimeFormat) -> str:
    return f"id: {event.service_delete.id}"


def _address(address: flow_pb2.ServiceUpsertNotificationAddr) -> str:
    return f"[{address.ip}]:{address.port}" if ":" in address.ip else f"{address.ip}:{address.port}"


def _named(name: str, value: str) -> str:
    return f", {name}: {value}" if value else ""


Details = Callable[[flow_pb2.AgentEvent, TimeFormat], str]

_DETAILS: Final[dict[tuple[int, str], Details]] = {
    (flow_pb2.AGENT_EVENT_UNKNOWN, "unknown"): _unknown,
    (flow_pb2.AGENT_STARTED, "agent_start"): _start,
    (flow_pb2.POLICY_UPDATED, "policy_update"): _policy,
    (flow_pb2.POLICY_DELETED, "policy_update"): _policy,
    (flow_pb2.ENDPOINT_REGENERATE_SUCCESS, "endpoint_regenerate"): _regenerate,
    (flow_pb2.ENDPOINT_REGENERATE_FAILURE, "endpoint_regenerate"): _regenerate,
    (flow_pb2.ENDPOINT_CREATED, "endpoint_update"): _endpoint,
    (flow_pb2.ENDPOINT_DELETED, "endpoint_update"): _endpoint,
    (flow_pb2.IPCACHE_UPSERTED, "ipcache_update"): _ipcache,
    (flow_pb2.IPCACHE_DELETED, "ipcache_update"): _ipcache,
    (flow_pb2.SERVICE_UPSERTED, "service_upsert"): _service,
    (flow_pb2.SERVICE_DELETED, "service_delete"): _service_gone,
}
"""By type and payload: a type with another payload than its own says nothing that could be trusted."""


def source_text(event: flow_pb2.DebugEvent) -> str:
    """The endpoint that a debug event is about."""
    if not event.HasField("source"):
        return "N/A"
    source = event.source
    number = f"ID: {source.ID}"
    if source.namespace and source.pod_name:
        return f"{source.namespace}/{source.pod_name} ({number})"
    if len(source.labels) == 1 and source.labels[0].startswith("reserved:"):
        return f"{source.labels[0]} ({number})"
    return number


def hex_text(value: UInt32Value | None) -> str:
    """`0xdeadbeef`, or `N/A`."""
    return "N/A" if value is None else f"{value.value:#x}"


def cpu_text(value: Int32Value | None) -> str:
    """At least two digits, or `N/A`."""
    return "N/A" if value is None else f"{value.value:02}"
