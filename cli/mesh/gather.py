"""What can be found out about a cluster and its nodes.

In:        the resources; agents' files; pinned maps; what observers and the relay answer.
Out:       a Report: facts as plain data (`-o json` prints them), errors and warnings.
Elsewhere: status.py draws the whole cluster, node_status.py one node; mesh/report.py has the form of agents' files.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final

from bpf import tcx
from bpf.census import MapUse, census
from bpf.datapath import Datapath
from bpf.libbpf import BpfError
from bpf.maps import POLICY_PIN
from cli.mesh.place import Place
from cli.mesh.view import View
from mesh.ipam import ingress_addresses, is_ipv4, router_addresses
from mesh.report import ALIVE_S
from mesh.resources.cluster import Node
from proto.observer import observer_pb2
from rpc.client import Channel
from rpc.status import RpcError
from rpc.target import Target

ASK_S: Final = 3.0
"""How long a server may take to answer."""
CROWDED: Final = 0.9
"""A map that is fuller than this part of its size gives a warning, unless it throws out old entries by itself."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or looks so."""

    component: str
    """`agent`, `observer`, `relay`, a part of the agent, `pods`."""
    where: str
    """Node or pod; empty: the cluster."""
    message: str
    """What, and what helps."""


@dataclass(slots=True)
class NodeReport:
    """One node."""

    name: str
    addresses: list[str]
    agent: dict[str, Any]
    """agent.json; empty: there is none here."""
    alive: bool
    silent_s: float
    """Since the agent last wrote."""
    behind: int
    """Changes of the store that the agent has not put into the kernel."""
    hubble: dict[str, Any]
    """The observer's status; empty: no answer."""
    maps: list[MapUse]
    policies: dict[int, int]
    """Entries of the policy maps, by endpoint id."""
    events: dict[str, int]
    pods: dict[str, int]
    """`all`, `ready`, `managed`."""
    allocated: dict[str, dict[str, str]]
    """By pod range: address -> owner."""
    attach_mode: str = ""
    """How programs are attached to devices; empty: the node's kernel is not this one."""

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """What the agent's parts say."""
        parts = self.agent.get("parts", {})
        return parts if isinstance(parts, dict) else {}


@dataclass(slots=True)
class Report:
    """The cluster."""

    revision: int
    nodes: list[NodeReport]
    relay: dict[str, Any]
    """The relay's status with its `address`; without `version`: no answer. Empty: there is none."""
    processes: dict[str, bool]
    """Of a lab, by name: whether it runs."""
    controller: bool | None
    """Whether resources become pods and addresses; None: nobody here knows."""
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def of(self, component: str) -> str:
        """`OK`, or `2 errors, 1 warnings`."""
        counts = [
            (len([one for one in found if one.component == component]), word)
            for found, word in ((self.errors, "errors"), (self.warnings, "warnings"))
        ]
        return ", ".join(f"{count} {word}" for count, word in counts if count) or "OK"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def gather(view: View, revision: int, relay: str) -> Report:
    """Look at everything. relay: its address; empty: none."""
    place, nodes = view.place, view.cluster.nodes()
    targets = {node.name: place.observer(node.name) for node in nodes if place.lab or node.name in view.agents}
    answers = asyncio.run(_ask_all({**targets, "": relay} if relay else targets))
    state = place.lab_state()
    report = Report(
        revision=revision,
        nodes=[_node(view, node, revision, answers.get(node.name)) for node in nodes],
        relay={"address": relay, **_counts(answers[""])} if relay else {},
        processes={one["name"]: bool(one["pid"]) for one in state.get("processes", ())},
        controller=_runs(state.get("pid")) if place.lab else None,
    )
    _judge(report, view, answers)
    return report


def _node(view: View, node: Node, revision: int, answer: Any) -> NodeReport:
    agent = view.agents.get(node.name, {})
    pods = [pod for pod in view.cluster.pods() if pod.spec.node_name == node.name and not pod.spec.host_network]
    known = set(agent.get("pods", ()))
    maps, events = _kernel(view.place, node.name)
    uses = [(one.name.removeprefix(POLICY_PIN), one.entries) for one in maps if one.name.startswith(POLICY_PIN)]
    return NodeReport(
        name=node.name,
        addresses=list(node.ips),
        agent=agent,
        alive=_runs(agent.get("pid")),
        silent_s=max(0.0, round(view.now_s - agent.get("written_s", view.now_s), 1)),
        behind=max(0, revision - agent.get("revision", revision)),
        hubble=_counts(answer),
        maps=[one for one in maps if not one.name.startswith(POLICY_PIN)],
        policies={int(number): entries or 0 for number, entries in uses if number.isdigit()},
        events=events,
        pods={
            "all": len(pods),
            "ready": sum(pod.status.ready for pod in pods),
            "managed": sum(pod.metadata.uid in known for pod in pods),
        },
        allocated={
            cidr: {
                **_own_addresses(node, cidr),
                **{
                    address: f"{pod.namespace}/{pod.name}"
                    for pod in pods
                    for address in pod.ips
                    if is_ipv4(address) == (ip_network(cidr).version == 4)
                },
            }
            for cidr in node.spec.pod_cidrs
        },
        attach_mode=_attach_mode() if maps else "",
    )


def _attach_mode() -> str:
    return "TCX" if tcx.is_known() else "Legacy TC"


def _own_addresses(node: Node, cidr: str) -> dict[str, str]:
    """What the node keeps for itself of a pod range."""
    named = (("router", router_addresses(node)), ("ingress", ingress_addresses(node)))
    return {address: name for name, found in named for address in found if ip_address(address) in ip_network(cidr)}


def _kernel(place: Place, node: str) -> tuple[list[MapUse], dict[str, int]]:
    """Maps and event counters of a node; nothing when its maps are not here."""
    try:
        with Datapath(node, bpffs=place.bpffs) as datapath:
            maps = census(datapath.pin_dir)
            if not maps:
                return [], {}
            datapath.look()
            return maps, asdict(datapath.event_counters())
    except BpfError:
        return [], {}


def _runs(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def _ask_all(targets: Mapping[str, str]) -> dict[str, Any]:
    """ServerStatus of all, by name; None, or the error's text, where there is no answer."""
    return dict(zip(targets, await asyncio.gather(*map(_ask, targets.values())), strict=True))


async def _ask(address: str) -> Any:
    channel = Channel(Target.parse(address, 443))
    try:
        return await channel.unary(
            "/observer.Observer/ServerStatus",
            observer_pb2.ServerStatusRequest(),
            observer_pb2.ServerStatusResponse,
            timeout_s=ASK_S,
        )
    except RpcError as error:
        return error.message
    finally:
        await channel.close()


def _counts(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, observer_pb2.ServerStatusResponse):
        return {}
    found: dict[str, Any] = {name: getattr(answer, name) for name in ("num_flows", "max_flows", "seen_flows")}
    found |= {"flows_rate": answer.flows_rate, "uptime_s": answer.uptime_ns // 10**9, "version": answer.version}
    for name in ("num_connected_nodes", "num_unavailable_nodes"):
        if answer.HasField(name):
            found[name] = getattr(answer, name).value
    return {**found, "unavailable_nodes": list(answer.unavailable_nodes)}


def _judge(report: Report, view: View, answers: Mapping[str, Any]) -> None:
    """Errors and warnings."""
    if report.controller is False:
        report.errors.append(Finding("controller", "", "the lab's supervisor is gone; `flowscope lab up` starts anew"))
    if not report.nodes:
        report.errors.append(Finding("agent", "", "there is no node; apply a Node, or start a lab"))
    for node in report.nodes:
        if node.agent or view.place.lab:
            _judge_agent(report, node)
            if node.name in answers and not node.hubble:
                why = f"no answer ({answers[node.name]}); start `flowscope observer`, or see its log"
                report.errors.append(Finding("observer", node.name, why))
    if report.relay and "version" not in report.relay:
        where = report.relay["address"]
        report.errors.append(Finding("relay", "", f"no answer on {where} ({answers['']}); start `flowscope relay`"))
    if missing := report.relay.get("unavailable_nodes"):
        report.warnings.append(Finding("relay", "", f"cannot reach {', '.join(missing)}"))
    for pod in view.cluster.pods():
        if not pod.status.ready and pod.status.phase != "Succeeded":
            title = f"{pod.namespace}/{pod.name}"
            why = f"is not ready ({pod.status.phase}); see `flowscope mesh describe pod {pod.name} -n {pod.namespace}`"
            report.warnings.append(Finding("pods", title, why))


def _judge_agent(report: Report, node: NodeReport) -> None:
    if not node.agent:
        report.errors.append(Finding("agent", node.name, "has not reported; start `flowscope agent`, or see its log"))
        return
    if not node.alive:
        why = f"process {node.agent.get('pid')} is gone; the datapath goes on unchanged until it is started again"
        report.errors.append(Finding("agent", node.name, why))
        return
    if node.silent_s > 2 * ALIVE_S:
        report.errors.append(Finding("agent", node.name, f"has said nothing for {node.silent_s:.0f} s; see its log"))
    if not node.maps:
        report.warnings.append(Finding("agent", node.name, "its maps cannot be read; run as root on the node"))
    for name, part in node.parts.items():
        message = str(part.get("message", "no details"))
        if part.get("state") == "failure":
            report.errors.append(Finding(name, node.name, message))
        elif part.get("state") == "warning":
            report.warnings.append(Finding(name, node.name, message))
    report.warnings += _crowded(node)


def _crowded(node: NodeReport) -> Iterable[Finding]:
    for one in node.maps:
        if one.entries is not None and not one.evicts and one.entries > CROWDED * one.max_entries > 0:
            yield Finding("maps", node.name, f"{one.name} holds {one.entries} of {one.max_entries} entries")
