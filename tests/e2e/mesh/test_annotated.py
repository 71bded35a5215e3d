"""A service with the annotation service.cilium.io/lb-l7: each request of one connection has a backend of its own."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.e2e.conftest import Lab
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

WAIT_S = 60
REQUESTS = 20
SERVICE = """
apiVersion: v1
kind: Service
metadata:
  name: balanced
  namespace: cilium-test
  annotations: {%s}
spec: {selector: {kind: echo}, ports: [{port: 8080}], ipFamilyPolicy: PreferDualStack}
"""
ASK = f"""
import http.client
server = http.client.HTTPConnection("balanced", 8080, timeout=20)
for number in range({REQUESTS}):
    server.request("GET", f"/?{{number}}")
    answer = server.getresponse()
    answer.read()
    print(answer.status, server.sock.getsockname()[1], answer.headers.get("server"))
"""


@pytest.fixture
def service(lab: Lab) -> Iterator[Lab]:
    """Without the annotation."""
    apply(lab, "")
    try:
        yield lab
    finally:
        lab.flowscope("mesh", "delete", "--store", str(lab.run_dir / "store"), "-f", "-", input=SERVICE % "")


def apply(lab: Lab, annotations: str) -> None:
    words = ("mesh", "apply", "--store", str(lab.run_dir / "store"), "--wait", "-f", "-")
    done = lab.flowscope(*words, input=SERVICE % annotations)
    assert done.returncode == 0, done.stderr


def ask(lab: Lab) -> list[list[str]]:
    """Status, own port and server of each answer."""
    done = lab.exec("client2", sys.executable, "-c", ASK)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_requests_of_one_connection_go_to_all_backends_in_turn(service: Lab) -> None:
    assert "envoy" not in {server for _, _, server in ask(service)}
    apply(service, "service.cilium.io/lb-l7: enabled, service.cilium.io/lb-l7-algorithm: round_robin")
    eventually(lambda: {server for _, _, server in ask(service)} == {"envoy"}, WAIT_S)
    since = datetime.now(UTC).isoformat()
    answers = ask(service)
    assert [status for status, _, _ in answers] == ["200"] * REQUESTS
    assert len({port for _, port, _ in answers}) == 1, "one connection"
    words = ("--server", service.relay, "--since", since, "--from-pod", "cilium-test/client2", "--protocol", "http")

    def backends() -> Counter[str]:
        lines = service.flowscope("observe", *words, "-o", "jsonpb").stdout.splitlines()
        asked = [json.loads(line)["flow"] for line in lines]
        return Counter(
            one["destination"]["pod_name"].partition("-node-")[0] for one in asked if one["l7"]["type"] == "REQUEST"
        )

    eventually(lambda: backends().total() == REQUESTS, WAIT_S)
    assert backends() == {"echo-same": REQUESTS // 2, "echo-other": REQUESTS // 2}
    for family in ("-4", "-6"):
        curl = ("curl", family, "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "balanced:8080")
        assert service.exec("client2", *curl).stdout == "200", family
    apply(service, "service.cilium.io/lb-l7: disabled")
    eventually(lambda: "envoy" not in {server for _, _, server in ask(service)}, WAIT_S)
