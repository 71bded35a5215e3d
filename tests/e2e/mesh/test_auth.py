"""Mutual authentication in the lab: the first request waits for a handshake, no request passes without one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from bpf.auth import now_ns
from bpf.datapath import Datapath
from bpf.facts import AuthPair
from tests.e2e.conftest import Lab
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: e2e-auth, namespace: cilium-test}
spec:
  endpointSelector: {matchLabels: {name: echo-other-node}}
  ingress:
  - fromEndpoints: [{matchLabels: {kind: client}}]
    authentication: {mode: required}
"""
TARGET = "echo-other-node"
SOON_S = 60.0
SECOND_NS = 10**9


@pytest.fixture(scope="module")
def guarded(lab: Lab) -> Iterator[Lab]:
    """The lab with the policy in force, and no record."""
    words = ("--store", str(lab.run_dir / "store"), "-f", "-")
    applied = lab.flowscope("mesh", "apply", "--wait", *words, input=POLICY)
    assert applied.returncode == 0, applied.stderr
    try:
        yield lab
    finally:
        lab.flowscope("mesh", "delete", *words, input=POLICY)


def asks(lab: Lab, wait_s: int) -> bool:
    """Whether client2 is answered; TCP sends again after 1, 3 and 7 s."""
    return lab.exec("client2", "curl", "-s", "-m", str(wait_s), "-o", "/dev/null", f"{TARGET}:8080/").returncode == 0


def node_of(lab: Lab, deployment: str) -> str:
    return str(lab.pod(deployment)["node"])


def agent(lab: Lab, node: str) -> dict[str, object]:
    told: dict[str, object] = json.loads((lab.run_dir / node / "agent.json").read_text())
    return told


def records(lab: Lab, change_to_ns: int | None = None) -> dict[AuthPair, int]:
    """Records of the server's node; with a time, they are over then."""
    with Datapath(node_of(lab, TARGET), bpffs=lab.run_dir / "bpf") as datapath:
        datapath.look()
        table = datapath.auth()
        found = table.records()
        if change_to_ns is not None:
            for pair in found:
                table.allow(pair, change_to_ns)
        return found


def lines(lab: Lab) -> str:
    """What flows say of client2 and the server."""
    return lab.flowscope(
        *("observe", "--server", lab.relay, "--last", "200", "--use-default-field-masks=false"),
        *("--from-pod", "cilium-test/client2", "--to-pod", f"cilium-test/{TARGET}"),
    ).stdout


def test_the_first_request_waits_for_the_handshake_and_flows_tell_it(guarded: Lab) -> None:
    assert asks(guarded, wait_s=30)
    [pair] = records(guarded)
    assert pair.node_id, "the client is on another node"
    wanted = (
        "policy-verdict:L3-Only INGRESS DENIED (TCP Flags: SYN; Auth: SPIRE)",
        "Authentication required DROPPED (TCP Flags: SYN)",
        "policy-verdict:L3-Only INGRESS ALLOWED (TCP Flags: SYN; Auth: SPIRE)",
    )
    eventually(lambda: all(one in lines(guarded) for one in wanted), SOON_S)
    shown = guarded.flowscope("mesh", "get", "csr", "--store", str(guarded.run_dir / "store")).stdout
    assert f"{node_of(guarded, TARGET)}.{pair.local}" in shown
    assert f"{node_of(guarded, 'client2')}.{pair.remote}" in shown
    assert "Approved,Issued" in shown


def test_a_record_that_is_used_is_renewed_before_its_end_and_made_anew_after_it(guarded: Lab) -> None:
    assert asks(guarded, wait_s=30)
    soon_ns = now_ns() + 600 * SECOND_NS
    records(guarded, change_to_ns=soon_ns)
    assert asks(guarded, wait_s=30)
    eventually(lambda: min(records(guarded).values(), default=0) > soon_ns, SOON_S)
    records(guarded, change_to_ns=1)
    assert asks(guarded, wait_s=30)
    assert min(records(guarded).values()) > soon_ns


def test_while_the_other_agent_is_dead_nothing_passes_and_it_is_said_why(guarded: Lab) -> None:
    server, client = node_of(guarded, TARGET), node_of(guarded, "client2")
    pid = agent(guarded, client)["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGSTOP)
    try:
        records(guarded, change_to_ns=1)
        assert not asks(guarded, wait_s=2)

        def told() -> dict[str, object]:
            parts = agent(guarded, server)["parts"]
            assert isinstance(parts, dict)
            part: dict[str, object] = parts["authentication"]
            return part

        eventually(lambda: told()["state"] == "warning", SOON_S)
        message = str(told()["message"])
        assert message.startswith("not authenticated: ")
        assert f" on {client}: the agent at " in message
        assert "does not answer" in message
        assert not any(expires_ns > now_ns() for expires_ns in records(guarded).values())
        # The same in the cluster's picture.
        assert message in guarded.flowscope("mesh", "status", "--store", str(guarded.run_dir / "store")).stdout
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: asks(guarded, wait_s=15), SOON_S)
