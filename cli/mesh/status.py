"""`flowscope mesh status`: the whole cluster at a glance, as `cilium status` shows it.

In:        a command line; what gather.py finds out.
Out:       the picture, or one node in detail; exit code 1 while something is wrong.
Elsewhere: node_status.py draws a single node.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from cli.command import Call
from cli.mesh.gather import Finding, NodeReport, Report, gather
from cli.mesh.node_status import node_text
from cli.mesh.place import Place, find_place, opened
from cli.mesh.view import View
from cli.output import show, wants_colour, write
from cli.settings import load_settings
from service.failure import Failure

POLL_S: Final = 0.5
_PICTURE: Final = (
    "    /¯¯\\",
    " /¯¯\\__/¯¯\\",
    " \\__/¯¯\\__/",
    " /¯¯\\__/¯¯\\",
    " \\__/¯¯\\__/",
    "    \\__/",
)
_TITLES: Final = ("Flowscope:", "Controller:", "Envoy:", "Hubble Relay:", "ClusterMesh:", "")
_COLOURS: Final = {"OK": "32", "disabled": "36", "unknown": "36"}


def run_status(call: Call) -> int:
    """`mesh status`."""
    if call.words:
        raise Failure(f"{call.words[0][:80]!r} means nothing here; a node is named with --node")
    place = find_place(call)
    deadline = time.monotonic() + call.number("wait-duration") / 1e9 if call.on("wait") else 0.0
    while True:
        report = look(call, place)
        if not (report.errors or (report.warnings and call.on("wait"))) or time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    nodes = chosen(call, report)
    if call.text("output") == "json":
        write(json.dumps(report.plain(), indent=2) + "\n")
    elif call.given("node") or call.on("verbose"):
        show("\n\n".join(node_text(one, report, verbose=call.on("verbose")) for one in nodes) + "\n")
    else:
        colour = wants_colour("auto")
        show("\n".join(cluster_lines(report, colour=colour)) + "\n", colour=colour)
    if call.on("wait") and (report.errors or report.warnings):
        print(f"flowscope: not everything was well after {call.number('wait-duration') / 1e9:g} s", file=sys.stderr)
        return 1
    return 1 if report.errors else 0


def chosen(call: Call, report: Report) -> list[NodeReport]:
    """The nodes that --node means. Raises: Failure."""
    if not call.given("node"):
        return report.nodes
    names = [one.name for one in report.nodes]
    if call.text("node") not in names:
        raise Failure(f"there is no node {call.text('node')!r}; there are {', '.join(names) or 'none'}")
    return [one for one in report.nodes if one.name == call.text("node")]


def look(call: Call, place: Place) -> Report:
    """What is found now."""
    with opened(place) as store:
        view = View(store.find(), place)
        revision = store.changes(0).revision
    return gather(view, revision, relay_of(call, place))


def relay_of(call: Call, place: Place) -> str:
    """The address of the relay: that of the lab, else the server that the settings name."""
    if call.given("server") or not place.lab:
        return load_settings(call).text("server").removeprefix("tls://")
    return str(place.lab_state().get("relay", ""))


def cluster_lines(report: Report, colour: bool = False) -> Iterator[str]:
    """The picture with its five lines, then what runs, then what is wrong."""
    agents = _worst(report, "agent", "observer", "policy", "endpoints", "pods", "maps")
    controller = "unknown" if report.controller is None else report.of("controller")
    relay = report.of("relay") if report.relay else "disabled"
    words = (agents, controller, _of_envoy(report), relay, "disabled", "")
    for line, title, word in zip(_PICTURE, _TITLES, words, strict=True):
        shown = f"\x1b[{_COLOURS.get(word, '31')}m{word}\x1b[0m" if colour and word else word
        yield f"{line:<15}{title:<16}{shown}".rstrip()
    yield ""
    findings = [*_findings("Errors:", report.errors), *_findings("Warnings:", report.warnings)]
    rows = [*_workloads(report), *findings]
    width = max(len(name) for _, name, text in rows if text) + 4
    yield from (f"{title:<18}{name:<{width}}{text}".rstrip() for title, name, text in rows)


def _workloads(report: Report) -> Iterator[tuple[str, str, str]]:
    nodes = report.nodes
    counts = {
        "agent": sum(one.alive for one in nodes),
        "observer": sum(bool(one.hubble) for one in nodes),
    }
    if envoys := [one.parts["envoy"] for one in nodes if "envoy" in one.parts]:
        counts["envoy"] = sum(bool(one.get("pid")) for one in envoys)
    singles = {"controller": report.controller} if report.controller is not None else {}
    if report.relay:
        singles["relay"] = "version" in report.relay
    if "ui" in report.processes:
        singles["ui"] = report.processes["ui"]
    for name, count in counts.items():
        yield "DaemonSet", f"flowscope-{name}", _ready(len(nodes), count)
    for name, runs in singles.items():
        yield "Deployment", f"flowscope-{name}", _ready(1, int(bool(runs)))
    running = {**counts, **{name: int(bool(runs)) for name, runs in singles.items()}}
    for at, (name, count) in enumerate(running.items()):
        yield "" if at else "Containers:", f"flowscope-{name}", f"Running: {count}"
    managed, total = (sum(one.pods[what] for one in nodes) for what in ("managed", "all"))
    yield "Cluster Pods:", f"{managed}/{total} managed by Flowscope", ""
    versions = Counter(str(one.hubble["version"]) for one in nodes if one.hubble)
    agents = Counter(str(one.agent.get("version", "unknown")) for one in nodes if one.alive)
    told = [("flowscope-agent", f"flowscope:v{version}: {count}") for version, count in agents.items()]
    told += [("flowscope-observer", f"{version}: {count}") for version, count in versions.items()]
    for at, (name, text) in enumerate(told):
        yield "" if at else "Image versions", name, text
    if report.relay.get("version"):
        yield "", "flowscope-relay", f"{report.relay['version']}: 1"


def _ready(desired: int, ready: int) -> str:
    away = f", Unavailable: {desired - ready}/{desired}" if ready < desired else ""
    return f"Desired: {desired}, Ready: {ready}/{desired}, Available: {ready}/{desired}{away}"


def _worst(report: Report, *components: str) -> str:
    """One word for several components."""
    counts = [
        (sum(one.component in components for one in found), word)
        for found, word in ((report.errors, "errors"), (report.warnings, "warnings"))
    ]
    return ", ".join(f"{count} {word}" for count, word in counts if count) or "OK"


def _of_envoy(report: Report) -> str:
    if not any("envoy" in one.parts for one in report.nodes):
        return "disabled"
    return _worst(report, "envoy", "envoy-config")


def _findings(title: str, findings: Sequence[Finding]) -> Iterator[tuple[str, str, str]]:
    for at, one in enumerate(findings):
        yield "" if at else title, one.component, f"{one.where}: {one.message}" if one.where else one.message
