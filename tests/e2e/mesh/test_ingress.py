"""Ingress and CiliumEnvoyConfig of the reference walk, in the lab: answers from outside and inside, and their flows."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from lab.rundir import RunDir
from tests.e2e.conftest import ROOT, Lab

pytestmark = pytest.mark.kernel

WALK = ROOT / "lab/manifests/walk"
WAIT_S = 15.0
REQUESTS = 200


def mesh(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    done = lab.flowscope("mesh", words[0], "--store", str(RunDir(lab.run_dir).store), *words[1:])
    assert done.returncode == 0, done.stderr
    return done


def outside(lab: Lab, *words: str) -> str:
    return lab.lab("exec", "--outside", "--", "curl", "-s", "-m", "5", *words).stdout


def status(lab: Lab, path: str) -> str:
    """Of one request of client2 to the service of echo-same-node."""
    words = ("curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", f"echo-same-node:8080{path}")
    return lab.exec("client2", *words).stdout


@pytest.fixture(scope="module")
def entry(lab: Lab) -> Iterator[str]:
    """Where the Ingress is reached from outside: a node's address and port."""
    files = [word for name in ("foo-bar-apps", "cilium-ingress") for word in ("-f", str(WALK / f"{name}.yaml"))]
    mesh(lab, "apply", *files)
    try:
        service = json.loads(mesh(lab, "get", "svc", "cilium-ingress-cilium-ingress", "-o", "json").stdout)
        node = json.loads(mesh(lab, "get", "node", lab.node("worker"), "-o", "json").stdout)
        found = f"{node['status']['addresses'][0]['address']}:{service['spec']['ports'][0]['nodePort']}"
        until(lambda: outside(lab, f"{found}/foo") == "foo\n")
        yield found
    finally:
        mesh(lab, "delete", *files)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


def test_clients_outside_are_served_by_path(lab: Lab, entry: str) -> None:
    assert outside(lab, f"{entry}/foo") == "foo\n"
    assert outside(lab, f"{entry}/bar") == "bar\n"
    assert outside(lab, "-w", "%{http_code} %{size_download}", f"{entry}/") == "404 0"


def test_answers_say_that_they_came_through_envoy(lab: Lab, entry: str) -> None:
    headers = outside(lab, "-I", f"{entry}/bar").lower()
    assert headers.startswith("http/1.1 200 ok")
    assert "server: envoy" in headers
    assert "x-envoy-upstream-service-time: " in headers
    assert "x-app-name: http-echo" in headers


def test_the_ingress_is_listed_as_kubectl_does(lab: Lab, entry: str) -> None:
    head, row = mesh(lab, "get", "ing").stdout.splitlines()
    assert head.split() == ["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"]
    assert row.split()[:3] == ["cilium-ingress", "cilium", "*"]


def test_requests_to_a_service_are_rewritten_split_and_told(lab: Lab) -> None:
    assert status(lab, "/foo") == "404"
    config = str(WALK / "cilium-envoy-config.yaml")
    since = datetime.now(UTC).isoformat()
    mesh(lab, "apply", "-f", config)
    try:
        until(lambda: status(lab, "/foo") == "200")
        ask = "curl -s -m 5 -o /dev/null -w '%{http_code} ' echo-same-node:8080/"
        answers = lab.exec("client2", "sh", "-c", f"for i in $(seq {REQUESTS}); do {ask}; done").stdout
        assert Counter(answers.split()) == {"200": REQUESTS}
        words = ("--server", lab.relay, "--protocol", "http", "--from-pod", "cilium-test/client2", "--since", since)

        def servers() -> Counter[str]:
            lines = lab.flowscope("observe", *words, "--http-path", "^/$", "-o", "jsonpb").stdout.splitlines()
            flows = [json.loads(line)["flow"] for line in lines]
            asked = [one for one in flows if one["l7"]["type"] == "REQUEST"]
            return Counter(one["destination"]["pod_name"].partition("-node-")[0] for one in asked)

        until(lambda: servers().total() > REQUESTS)
        # 200 fair coins: outside of this once in 25,000,000 runs.
        assert all(62 <= count <= 139 for count in servers().values()), servers()
    finally:
        mesh(lab, "delete", "-f", config)
    until(lambda: status(lab, "/foo") == "404")


def test_no_request_fails_while_a_config_comes_and_goes(lab: Lab) -> None:
    config = str(WALK / "cilium-envoy-config.yaml")
    done = lab.run_dir / "done"
    ask = "curl -s -m 5 -o /dev/null -w '%{http_code}\\n' echo-same-node:8080/"
    with ThreadPoolExecutor(1) as pool:
        script = f"until test -e {done}; do {ask}; done"
        asked = pool.submit(lab.exec, "client2", "sh", "-c", script)
        try:
            for _ in range(2):
                mesh(lab, "apply", "-f", config)
                until(lambda: status(lab, "/foo") == "200")
                mesh(lab, "delete", "-f", config)
                until(lambda: status(lab, "/foo") == "404")
        finally:
            done.touch()
        answers = Counter(asked.result().stdout.split())
    assert answers == {"200": answers.total()}
    assert answers.total() > 10


def test_what_envoy_refuses_changes_nothing(lab: Lab, entry: str) -> None:
    bad = lab.run_dir / "bad.yaml"
    text = (WALK / "cilium-envoy-config.yaml").read_text()
    bad.write_text(text.replace("connect_timeout: 5s", "connect_timeout: -5s"))
    done = lab.flowscope("mesh", "apply", "--store", str(RunDir(lab.run_dir).store), "-f", str(bad))
    assert done.returncode == 1
    assert "spec.resources[2]: Envoy refuses it: Invalid duration: Expected positive duration" in done.stderr
    assert outside(lab, f"{entry}/foo") == "foo\n"
