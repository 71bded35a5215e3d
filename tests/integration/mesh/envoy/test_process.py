"""A node's Envoy as a process: it outlives agents, dies and comes back, is replaced, refuses what makes no sense."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from mesh.envoy import module
from mesh.envoy.node import PARSERS
from mesh.envoy.process import shortened
from mesh.envoy.retiring import Extra
from service.failure import Failure
from tests.integration.mesh.envoy.test_requests import GET_ROOT, http, policy
from tests.support.policynet import PolicyNet
from tests.support.proxied import EnvoyHost, ask, ask_on, connection, echo_server
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel


def test_envoy_goes_on_without_its_agent_and_the_next_one_takes_it_over(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    host = mesh.envoys[mesh.near.number]
    pid = host.node.process.pid
    with echo_server(mesh["p"].pod.netns, 8080):
        made = connection(mesh["s"].pod.netns, mesh["p"].ip, 8080)
        assert ask_on(made).status == 200
        host.stop_agent()
        assert [ask_on(made, path=path).status for path in ("/", "/x")] == [200, 403]
        host.start_agent()
        assert host.node.process.pid == pid
        mesh.apply(policy(http("{path: /x}")))
        assert [ask_on(made, path=path).status for path in ("/", "/x")] == [403, 200]
        made.close()


def test_while_envoy_is_dead_the_kernel_refuses_and_then_it_comes_back(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    host = mesh.envoys[mesh.near.number]
    process = host.node.process
    with echo_server(mesh["p"].pod.netns, 8080):
        os.kill(process.pid, signal.SIGSTOP)
        dead = process.pid
        os.kill(dead, signal.SIGKILL)
        eventually(lambda: process.pid not in (0, dead))
        eventually(lambda: host.run(host.node.is_listening()))
        assert ask(mesh["s"].pod.netns, mesh["p"].ip, 8080).status == 200
        assert ask(mesh["s"].pod.netns, mesh["p"].ip, 8080, path="/x").status == 403
    assert host.node.status()["restarts"] == 1


def test_an_envoy_with_another_bootstrap_is_replaced_and_no_connection_breaks(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    host = mesh.envoys[mesh.near.number]
    before = host.node.process.pid
    with echo_server(mesh["p"].pod.netns, 8080):
        made = connection(mesh["s"].pod.netns, mesh["p"].ip, 8080)
        assert ask_on(made).status == 200
        (host.folder / "envoy.digest").write_text("of another one")
        host.stop_agent()
        host.start_agent()
        assert host.node.process.pid not in (0, before)
        assert ask_on(made).status == 200
        made.close()
        assert ask(mesh["s"].pod.netns, mesh["p"].ip, 8080).status == 200
    assert host.node.status()["state"] == "ok"


def test_what_envoy_refuses_is_told_in_its_words_and_the_rest_stays(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    host = mesh.envoys[mesh.near.number]
    broken = {"name": "ns/c/broken", "type": "EDS", "eds_cluster_config": {}}
    assert not host.run(host.node.update(mesh.views[mesh.near.number], Extra(clusters={"ns/c/broken": broken})))
    assert host.node.status()["state"] == "warning"
    assert any("ns/c/broken" in one for one in host.node.problems)
    with echo_server(mesh["p"].pod.netns, 8080):
        assert [ask(mesh["s"].pod.netns, mesh["p"].ip, 8080, path=path).status for path in ("/", "/x")] == [200, 403]
    assert not host.run(host.node.update(mesh.views[mesh.near.number])), "what users want stays wanted"
    assert host.run(host.node.update(mesh.views[mesh.near.number], Extra()))
    assert host.node.status()["state"] == "ok"


def test_statistics_do_not_grow_with_policies_resources_hosts_and_paths(mesh: PolicyNet) -> None:
    host = mesh.envoys[mesh.near.number]
    with echo_server(mesh["p"].pod.netns, 8080):
        known: list[set[str]] = []
        for turn in range(3):
            mesh.apply(policy(http(f"{GET_ROOT}, {{path: /{turn}}}")))
            many = [f"ns/{turn}/{number}" for number in range(50)]
            clusters = {name: {"name": name, "type": "STATIC", "connect_timeout": "1s"} for name in many}
            assert host.run(host.node.update(mesh.views[mesh.near.number], Extra(clusters=clusters)))
            made = connection(mesh["s"].pod.netns, mesh["p"].ip, 8080)
            for number in range(20):
                ask_on(
                    made,
                    path=f"/{turn}/{number}%00.%2e'\"<",
                    Host=f"h{turn}.{number}.example",
                    X_Request_Id="x" * number,
                )
            assert ask_on(made).status == 200
            made.close()
            known.append(set(host.run(host.node.process.admin.counters("."))))
    assert known[0] == known[1] == known[2]


def test_envoy_and_module_speak_of_the_same(mesh: PolicyNet) -> None:
    for host in mesh.envoys.values():
        assert "ABI" not in (host.folder / "envoy.log").read_text()


def test_a_module_that_is_not_built_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_LIBRARY", tmp_path / "libflowscope_records.so")
    with pytest.raises(Failure, match=r"libflowscope_records\.so: No such file.*; run `make setup`"):
        module.identity()


def test_where_records_find_no_room_at_all_nothing_is_passed_unrecorded(mesh: PolicyNet, tmp_path: Path) -> None:
    rings = tmp_path / "envoy" / "rings"
    rings.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(rings)], check=True)
    host = EnvoyHost(mesh.near.netns, rings.parent, lambda parser, egress: 18_700 + 2 * PARSERS.index(parser) + egress)
    reason = f"records of requests: no room in {rings}: No space left on device"

    def is_told() -> bool:
        host.run(host.node.look_again())
        return host.node.problems[:1] == (reason,)

    try:
        eventually(is_told, timeout_s=30)
        assert not host.run(host.node.is_listening())
    finally:
        host.close()
        subprocess.run(["umount", "-l", str(rings)], check=True)


def test_a_complaint_is_told_without_the_resource_that_it_quotes() -> None:
    said = b'goo.gle/debug {\\n name: \\"x\\"\\n}\\n: Proto constraint validation failed (X.Y: value is required)'
    assert shortened(said) == "Proto constraint validation failed (X.Y: value is required)"
    assert len(shortened(b"x" * 10_000)) < 700
