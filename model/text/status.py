"""What servers say about themselves, their nodes and namespaces, as text.

In:        ServerStatusResponse, Node and Namespace messages.
Out:       text in the chosen output form.
Elsewhere: cli/server_info.py asks the servers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from model.text.durations import format_duration
from model.text.flows import Output
from model.text.parts import enum_name
from model.text.style import Style
from model.text.table import align
from model.text.tojson import json_text, to_json
from proto.observer import observer_pb2
from proto.relay import relay_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

NOT_KNOWN: Final = "N/A"

_SECOND_NS: Final = 1_000_000_000
_PLAIN: Final = Style(colour=False)


def status_text(status: observer_pb2.ServerStatusResponse, output: Output) -> str:
    """The state of a server."""
    if output in (Output.JSON, Output.LEGACY_JSON):
        # The legacy form has nothing for it.
        return to_json(status) + "\n" if output is Output.JSON else ""
    if output is Output.COMPACT:
        return _PLAIN.harmless("".join(f"{line}\n" for line in _compact_lines(status)))
    rate = f"{status.flows_rate:.2f}" if status.flows_rate > 0 else NOT_KNOWN
    values = (
        f"{status.num_flows:,}",
        f"{status.max_flows:,}",
        f"{status.seen_flows:,}",
        rate,
        format_duration(status.uptime_ns) if status.uptime_ns < 1 << 63 else f"{status.uptime_ns}ns",
        str(status.num_connected_nodes.value) if status.HasField("num_connected_nodes") else NOT_KNOWN,
        str(status.num_unavailable_nodes.value) if status.HasField("num_unavailable_nodes") else NOT_KNOWN,
        status.version,
    )
    if output is Output.DICT:
        titles = [title.replace("UNAVAILABLE", "UNAVAIL.") for title in _TITLES]
        pairs = zip(titles, values, strict=True)
        return _PLAIN.harmless("".join(f"{title:>19}: {value}\n" for title, value in pairs))
    return align(_PLAIN.harmless("\t".join(_TITLES) + "\n" + "\t".join(values) + "\n"))


_TITLES: Final = (
    "NUM FLOWS",
    "MAX FLOWS",
    "SEEN FLOWS",
    "FLOWS PER SECOND",
    "UPTIME",
    "NUM CONNECTED NODES",
    "NUM UNAVAILABLE NODES",
    "VERSION",
)


def _compact_lines(status: observer_pb2.ServerStatusResponse) -> Iterable[str]:
    share = f" ({100 * status.num_flows / status.max_flows:.2f}%)" if status.max_flows else ""
    yield f"Current/Max Flows: {status.num_flows:,}/{status.max_flows:,}{share}"
    rate = NOT_KNOWN
    uptime_ns = _signed(status.uptime_ns)
    if status.flows_rate > 0:
        rate = f"{status.flows_rate:.2f}"
    elif uptime_ns > 0:
        rate = f"{status.seen_flows / (uptime_ns / _SECOND_NS):.2f}"
    yield f"Flows/s: {rate}"
    connected, unavailable = status.num_connected_nodes.value, status.num_unavailable_nodes.value
    if status.HasField("num_connected_nodes"):
        total = f"/{connected + unavailable}" if status.HasField("num_unavailable_nodes") else ""
        yield f"Connected Nodes: {connected}{total}"
    if unavailable:
        yield f"Unavailable Nodes: {unavailable}"
        names = sorted(status.unavailable_nodes, key=str.encode)
        yield from (f"  - {name}" for name in names)
        if names and unavailable > len(names):
            yield f"  - and {unavailable - len(names)} more..."


def _signed(number: int) -> int:
    """An unsigned 64-bit number as Go's Duration takes it."""
    return number - (1 << 64) if number >= 1 << 63 else number


_STATES: Final = {
    relay_pb2.NODE_CONNECTED: "Connected",
    relay_pb2.NODE_UNAVAILABLE: "Unavailable",
    relay_pb2.NODE_GONE: "Gone",
    relay_pb2.NODE_ERROR: "Error",
}


def nodes_text(nodes: Sequence[observer_pb2.Node], output: str) -> str:
    """The nodes, by name.

    output  `table`, `wide` or `json`.
    """
    nodes = sorted(nodes, key=lambda node: node.name.encode())
    if output == "json":
        return json_list(nodes)
    wide = output == "wide"
    lines = ["NAME\tSTATUS\tAGE\tFLOWS/S\tCURRENT/MAX-FLOWS" + ("\tVERSION\tADDRESS\tTLS" if wide else "")]
    lines += ["\t".join(_node_cells(node, wide)) for node in nodes]
    return align("\n".join(lines) + "\n")


def _node_cells(node: observer_pb2.Node, wide: bool) -> Iterable[str]:
    age_ns = _rounded(_signed(node.uptime_ns))
    share = f"{node.num_flows}/{node.max_flows} ({100 * node.num_flows / (node.max_flows or 1):6.2f}%)"
    yield node.name
    yield _STATES.get(node.state, "Unknown")
    yield format_duration(age_ns) if age_ns else NOT_KNOWN
    yield f"{node.seen_flows / (age_ns / _SECOND_NS):.2f}" if age_ns else NOT_KNOWN
    yield share if node.max_flows else NOT_KNOWN
    if wide:
        yield node.version or NOT_KNOWN
        yield node.address
        yield ("Enabled" if node.tls.enabled else "Disabled") if node.HasField("tls") else NOT_KNOWN


def _rounded(ns: int) -> int:
    """To whole seconds, halves away from zero."""
    whole = (abs(ns) + _SECOND_NS // 2) // _SECOND_NS * _SECOND_NS
    return -whole if ns < 0 else whole


def namespaces_text(namespaces: Sequence[observer_pb2.Namespace], output: str) -> str:
    """The namespaces, in the order of the server.

    output  `table`, `wide` or `json`.
    """
    if output == "json":
        return json_list(namespaces)
    if output == "wide":
        lines = ["NAMESPACE\tCLUSTER"]
        lines += [f"{one.namespace}\t{one.cluster}" if one.cluster else one.namespace for one in namespaces]
    else:
        lines = ["NAMESPACE", *(one.namespace for one in namespaces)]
    return align("\n".join(lines) + "\n")


def peer_text(change: Any, kind: str) -> str:
    """One line about a peer that came, changed or went."""
    tls = f" (TLS.ServerName: {change.tls.server_name})" if change.HasField("tls") else ""
    return f"{kind:<12} {change.address} {change.name}{tls}\n"


def peer_kind(peer_pb2: Any, number: int) -> str:
    """The name of a kind of change."""
    return enum_name(peer_pb2.ChangeNotificationType, number)


def json_list(messages: Sequence[Message]) -> str:
    """Messages as an indented JSON array; `null` when there are none."""
    if not messages:
        return "null\n"
    return _indented([json.loads(to_json(message)) for message in messages], "") + "\n"


def _indented(value: Any, margin: str) -> str:
    inner = margin + "  "
    if isinstance(value, dict):
        items = [f"{inner}{json_text(key)}: {_indented(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{margin}}}" if items else "{}"
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _indented(item, inner) for item in value) + f"\n{margin}]" if value else "[]"
    return json_text(value) if isinstance(value, str) else json.dumps(value)
