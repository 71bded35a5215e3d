"""One node in detail, as `cilium-dbg status` shows it.

In:        a NodeReport.
Out:       lines `Title:   text`.
Elsewhere: gather.py finds out; status.py draws the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any, Final

from cli.mesh.gather import NodeReport, Report
from cli.mesh.view import duration
from cli.table import lines_of
from mesh import identities
from mesh.identities import LAST as LAST_IDENTITY

_WORDS: Final = {"ok": "Ok", "warning": "Warning", "failure": "Failure", "disabled": "Disabled"}
_WIDTH: Final = 25


def node_text(node: NodeReport, report: Report, *, verbose: bool) -> str:
    """Everything about a node; verbose: with addresses, parts and maps one by one."""
    lines = [f"{'Node:':<{_WIDTH}}{node.name} ({', '.join(node.addresses)})"]
    lines += [f"{title + ':':<{_WIDTH}}{text}" for title, text in _facts(node, report)]
    if verbose:
        lines += _details(node)
    found = [one for one in (*report.errors, *report.warnings) if one.where == node.name]
    lines += [f"{'Problem:':<{_WIDTH}}{one.component}: {one.message}" for one in found]
    return "\n".join(line.rstrip() for line in lines)


def _facts(node: NodeReport, report: Report) -> Iterator[tuple[str, str]]:
    behind = f"{node.behind} changes behind" if node.behind else "synchronised"
    yield "KVStore", f"Ok   SQLite, revision {report.revision}, {behind}"
    services = node.parts.get("services", {})
    if services:
        yield "KubeProxyReplacement", _part(services)
    if not node.agent:
        yield "Flowscope", "Failure   the agent has not reported"
        return
    age = duration(node.agent["written_s"] - node.agent["started_s"])
    state = "Ok" if node.alive else "Failure"
    version = node.agent.get("version", "of unknown version")
    yield "Flowscope", f"{state}   {version}, agent process {node.agent['pid']}, up {age}"
    if node.events:
        lost, nobody = node.events["ring_full"], node.events["no_reader"]
        yield "NodeMonitor", f"{node.events['emitted']} events, {lost} lost, {nobody} without a reader"
    ranges = ((ip_network(cidr), owners) for cidr, owners in node.allocated.items())
    shares = (f"IPv{one.version}: {len(owners)}/{one.num_addresses - 2} allocated from {one}" for one, owners in ranges)
    yield "IPAM", ", ".join(shares)
    if "devices" in node.parts:
        yield "Routing", _part(node.parts["devices"])
    if node.attach_mode:
        yield "Attach Mode", node.attach_mode
        yield "Device Mode", "veth"
        yield "Clock Source for BPF", "ktime"
    if "masquerade" in node.parts:
        yield "Masquerading", _part(node.parts["masquerade"])
    well = [one for one in node.parts.values() if one.get("state") in ("ok", "disabled")]
    yield "Controller Status", f"{len(well)}/{len(node.parts)} healthy"
    yield "Proxy Status", _part(node.parts["envoy"]) if "envoy" in node.parts else "Disabled"
    if "envoy-config" in node.parts:
        yield "Envoy Configuration", _part(node.parts["envoy-config"])
    if "dns" in node.parts:
        yield "DNS Proxy Status", _part(node.parts["dns"])
    yield "Global Identity Range", f"min {identities.FIRST}, max {LAST_IDENTITY}"
    entries = sum(node.policies.values())
    yield "Policy", f"{len(node.policies)} of {node.pods['all']} endpoints enforced, {entries} map entries"
    if node.hubble:
        now, most = node.hubble["num_flows"], node.hubble["max_flows"]
        share = 100 * now / most if most else 0.0
        rate = node.hubble["flows_rate"]
        yield "Hubble", f"Ok   Current/Max Flows: {now}/{most} ({share:.2f}%), Flows/s: {rate:.2f}"
    else:
        yield "Hubble", "Failure   the observer does not answer"
    if "num_connected_nodes" in report.relay:
        reached = report.relay["num_connected_nodes"]
        yield "Cluster health", f"{reached}/{len(report.nodes)} reachable from the relay"


def _part(part: dict[str, Any]) -> str:
    return f"{_WORDS.get(str(part.get('state')), 'Unknown')}   {part.get('message', '')}"


def _details(node: NodeReport) -> Iterator[str]:
    yield "Allocated addresses:"
    for owners in node.allocated.values():
        yield from (f"  {address} ({owner})" for address, owner in owners.items())
    if node.parts:
        yield "Controllers:"
        rows = [("Name", "State", "Message")]
        rows += [(name, str(one.get("state")), str(one.get("message", ""))) for name, one in node.parts.items()]
        yield from (f"  {line}" for line in lines_of(rows))
    if node.policies:
        yield "Policy maps:"
        rows = [("Endpoint", "Entries", "")]
        rows += [(str(number), str(count), "") for number, count in sorted(node.policies.items())]
        yield from (f"  {line}" for line in lines_of(rows))
    if node.maps:
        yield "BPF Maps:"
        uses = [("Name", "Entries", "Size", "Evicted")]
        for one in node.maps:
            uses.append((one.name, _count(one.entries), str(one.max_entries), _count(one.evicted)))
        yield from (f"  {line}" for line in lines_of(uses))


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)
