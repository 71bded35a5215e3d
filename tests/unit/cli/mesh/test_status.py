"""The picture of a cluster, from facts."""

from __future__ import annotations

from typing import Any

from cli.mesh.gather import Finding, NodeReport, Report
from cli.mesh.node_status import node_text
from cli.mesh.status import cluster_lines


def node(name: str, **parts: dict[str, Any]) -> NodeReport:
    agent = {
        "node": name,
        "version": "0.9",
        "pid": 1,
        "started_s": 100,
        "written_s": 190.0,
        "revision": 7,
        "parts": parts,
    }
    hubble = {"num_flows": 4095, "max_flows": 4095, "flows_rate": 2.5, "version": "flowscope v1"}
    pods = {"all": 2, "ready": 2, "managed": 2}
    allocated = {"10.244.1.0/24": {"10.244.1.1": "router", "10.244.1.2": "default/a"}}
    return NodeReport(name, ["172.18.0.2"], agent, True, 0.0, 0, hubble, [], {5: 14}, {}, pods, allocated)


def report(*nodes: NodeReport, **more: Any) -> Report:
    relay = {"address": "localhost:4245", "version": "hubble-relay v1"}
    return Report(7, list(nodes), relay, {"ui": False}, True, **more)


def test_all_well_looks_as_in_the_article() -> None:
    envoy = {"state": "ok", "message": "2 redirects", "pid": 9}
    assert "\n".join(cluster_lines(report(node("a", envoy=envoy), node("b", envoy=envoy)))).startswith(
        """\
    /¯¯\\       Flowscope:      OK
 /¯¯\\__/¯¯\\    Controller:     OK
 \\__/¯¯\\__/    Envoy:          OK
 /¯¯\\__/¯¯\\    Hubble Relay:   OK
 \\__/¯¯\\__/    ClusterMesh:    disabled
    \\__/

DaemonSet         flowscope-agent         Desired: 2, Ready: 2/2, Available: 2/2
DaemonSet         flowscope-observer      Desired: 2, Ready: 2/2, Available: 2/2
DaemonSet         flowscope-envoy         Desired: 2, Ready: 2/2, Available: 2/2
Deployment        flowscope-controller    Desired: 1, Ready: 1/1, Available: 1/1
Deployment        flowscope-relay         Desired: 1, Ready: 1/1, Available: 1/1
Deployment        flowscope-ui            Desired: 1, Ready: 0/1, Available: 0/1, Unavailable: 1/1
"""
    )


def test_what_is_wrong_is_counted_and_listed_with_where() -> None:
    errors = [Finding("agent", "a", "is gone"), Finding("relay", "", "no answer")]
    lines = list(cluster_lines(report(node("a"), errors=errors, warnings=[Finding("pods", "x/y", "is not ready")])))
    assert lines[0].endswith("1 errors, 1 warnings")
    assert lines[2].endswith("disabled"), "nobody tells of Envoy"
    assert lines[3].endswith("1 errors")
    assert [line.split() for line in lines[-3:]] == [
        ["Errors:", "agent", "a:", "is", "gone"],
        ["relay", "no", "answer"],
        ["Warnings:", "pods", "x/y:", "is", "not", "ready"],
    ]


def test_a_node_is_told_line_by_line() -> None:
    one = node("a", envoy={"state": "failure", "message": "does not start"})
    lines = node_text(one, report(one), verbose=True).splitlines()
    one.attach_mode = "TCX"
    assert "Attach Mode:             TCX" in node_text(one, report(one), verbose=False).splitlines()
    assert "Flowscope:               Ok   0.9, agent process 1, up 90s" in lines
    assert not any(line.startswith("Routing") for line in lines), "nobody tells of devices"
    assert not any(line.startswith("Attach Mode") for line in lines), "its kernel is not this one"
    assert "IPAM:                    IPv4: 2/254 allocated from 10.244.1.0/24" in lines
    assert "Controller Status:       0/1 healthy" in lines
    assert "Proxy Status:            Failure   does not start" in lines
    assert "Hubble:                  Ok   Current/Max Flows: 4095/4095 (100.00%), Flows/s: 2.50" in lines
    assert "  10.244.1.2 (default/a)" in lines
