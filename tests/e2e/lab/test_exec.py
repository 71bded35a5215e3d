"""`lab exec` in the demo's cluster: pods, nodes, the outside world."""

from __future__ import annotations

import json
import os
import pty
import subprocess

import pytest

from tests.e2e.conftest import ROOT, Lab, command

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("server", ["echo-same-node", "echo-other-node"])
def test_pods_reach_each_other_by_name(lab: Lab, server: str) -> None:
    answer = lab.exec("client2", "curl", "-sv", "-m", "5", f"{server}:8080/")
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout) == 2057
    assert "< X-Powered-By: Express" in answer.stderr


def test_pods_reach_each_other_over_ipv6(lab: Lab) -> None:
    address = lab.pod("echo-other-node")["ips"][1]
    answer = lab.exec("client2", "curl", "-s", "-m", "5", f"http://[{address}]:8080/client-ip")
    assert json.loads(answer.stdout) == {"client-ip": lab.pod("client2")["ips"][1]}


def test_large_requests_cross_the_overlay(lab: Lab) -> None:
    curl = "curl -s -m 5 -o /dev/null -w '%{http_code}' --data-binary @- echo-other-node:8080/public"
    assert lab.exec("client2", "sh", "-c", f"head -c 300000 /dev/zero | {curl}").stdout == "404"


@pytest.mark.parametrize("code", [0, 3, 127])
def test_the_command_s_exit_code_is_passed_on(lab: Lab, code: int) -> None:
    assert lab.exec("client2", "sh", "-c", f"exit {code}").returncode == code


def test_a_command_that_does_not_exist_is_127(lab: Lab) -> None:
    missing = lab.exec("client2", "no-such-command")
    assert missing.returncode == 127
    assert "cannot execute 'no-such-command': No such file or directory" in missing.stderr


def test_standard_input_reaches_the_command(lab: Lab) -> None:
    assert lab.lab("exec", "-i", "-n", "cilium-test", "client2", "--", "cat", input="hello").stdout == "hello"


def test_a_terminal_is_the_command_s_terminal(lab: Lab) -> None:
    ours, theirs = pty.openpty()
    words = ("lab", "exec", "-it", "--run-dir", str(lab.run_dir), "-n", "cilium-test", "client2", "--", "tty")
    done = subprocess.run(command(*words), stdin=theirs, stdout=theirs, cwd=ROOT, timeout=20)
    os.close(theirs)
    assert done.returncode == 0
    assert os.read(ours, 100).startswith(b"/dev/pts/")
    os.close(ours)


def test_a_pod_has_its_own_name_files_and_devices(lab: Lab) -> None:
    pod = lab.pod("client2")
    assert lab.exec("client2", "hostname").stdout.strip() == pod["name"]
    assert "search cilium-test.svc.cluster.local" in lab.exec("client2", "cat", "/etc/resolv.conf").stdout
    assert lab.exec("client2", "ls", "/sys/class/net").stdout.split() == ["eth0", "lo"]


def test_pods_are_found_by_deployment_and_prefix(lab: Lab) -> None:
    name = lab.pod("client2")["name"]
    for asked in (name, "client2", "deploy/client2", name[:-2]):
        assert lab.exec(asked, "hostname").stdout.strip() == name


def test_nodes_reach_pods_and_know_each_other(lab: Lab) -> None:
    address = lab.pod("echo-other-node")["ips"][0]
    answer = lab.lab("exec", "--node", lab.node("worker"), "--", "curl", "-s", "-m", "5", f"{address}:8080/client-ip")
    assert json.loads(answer.stdout) == {"client-ip": "::ffff:10.244.1.1"}
    hosts = lab.lab("exec", "--node", lab.node("worker"), "--", "getent", "hosts", lab.node("worker3"))
    assert hosts.stdout.split()[0] == "172.18.0.5"


def test_the_outside_world_is_the_bridge_s_first_address(lab: Lab) -> None:
    seen = lab.lab("exec", "--outside", "--", "ip", "-br", "address", "show", "kind")
    assert "172.18.0.1/16" in seen.stdout


def test_names_that_do_not_exist_fail_at_once(lab: Lab) -> None:
    assert lab.exec("client2", "curl", "-sS", "-m", "3", "nosuch:80").returncode == 6
    assert lab.exec("client2", "curl", "-sS", "-m", "3", "nosuch.example").returncode == 6


def test_a_pod_that_falls_is_started_again(lab: Lab) -> None:
    before = lab.pod("echo-same-node")["restarts"]
    lab.exec("echo-same-node", "sh", "-c", "kill $(pgrep -f lab.servers.json_echo --ns $$ --nslist net | head -1)")
    answer = lab.exec("client2", "curl", "-s", "-m", "10", "--retry", "20", "--retry-connrefused", "--retry-delay", "1",
                      "-o", "/dev/null", "-w", "%{http_code}", "echo-same-node:8080/")  # fmt: skip
    assert answer.stdout == "200"
    assert lab.pod("echo-same-node")["restarts"] == before + 1
