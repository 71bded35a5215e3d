"""CiliumEnvoyConfigs that speak no HTTP: pods are themselves towards backends, and their egress policy holds there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.conftest import Lab
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

WAIT_S = 60
BALANCER = """
apiVersion: v1
kind: Service
metadata: {name: by-tcp, namespace: cilium-test}
spec: {selector: {kind: echo}, ports: [{port: 8080}]}
---
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: by-tcp, namespace: cilium-test}
spec:
  services: [{name: by-tcp}]
  resources:
    - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
      name: tcp
      filter_chains:
        - filters:
            - name: envoy.filters.network.tcp_proxy
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                stat_prefix: tcp
                cluster: cilium-test/by-tcp
    - "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
      name: cilium-test/by-tcp
      type: EDS
      connect_timeout: 0.3s
"""
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: by-tcp, namespace: cilium-test}
spec:
  endpointSelector: {matchLabels: {name: client2}}
  egress:
  - toPorts: [{ports: [{port: "53", protocol: ANY}]}]
  - toEndpoints: [{matchLabels: {name: echo-same-node}}]
"""


def test_the_backend_sees_the_pod_and_the_pods_policy_judges_the_backend(lab: Lab) -> None:
    store = ("--store", str(lab.run_dir / "store"))

    def apply(text: str) -> None:
        done = lab.flowscope("mesh", "apply", *store, "--wait", "-f", "-", input=text)
        assert done.returncode == 0, done.stderr

    def ask() -> str:
        return lab.exec(
            "client2", "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "by-tcp:8080"
        ).stdout

    def seen(since: str, *words: str) -> list[tuple[str, str]]:
        """Verdicts and backends of connections that are made in the client's name."""
        chosen = ("--server", lab.relay, "--since", since, "--from-pod", "cilium-test/client2", "--tcp-flags", "SYN")
        lines = lab.flowscope("observe", *chosen, *words, "-o", "jsonpb").stdout.splitlines()
        flows: list[dict[str, Any]] = [json.loads(line)["flow"] for line in lines]
        return [(one["verdict"], one["destination"].get("pod_name", "").partition("-node-")[0]) for one in flows]

    try:
        apply(BALANCER)
        since = datetime.now(UTC).isoformat()
        backends = {("FORWARDED", "echo-same"), ("FORWARDED", "echo-other")}
        eventually(lambda: ask() == "200" and set(seen(since, "--to-port", "8080")) >= backends, WAIT_S)
        apply(POLICY)
        since = datetime.now(UTC).isoformat()
        # Envoy goes on to choose both.
        eventually(lambda: {ask() for _ in range(4)} == {"200", "000"}, WAIT_S)
        eventually(lambda: ("DROPPED", "echo-other") in seen(since, "--verdict", "DROPPED"), WAIT_S)
        assert ("DROPPED", "echo-same") not in seen(since, "--verdict", "DROPPED")
        node = lab.node("worker")
        address = json.loads(
            lab.flowscope("mesh", "get", *store, "svc", "-n", "cilium-test", "by-tcp", "-o", "json").stdout
        )
        words = (
            "curl",
            "-s",
            "-m",
            "5",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            f"{address['spec']['clusterIP']}:8080",
        )
        assert lab.lab("exec", "--node", node, "--", *words).stdout == "200", "the node itself is served too"
    finally:
        for text in (POLICY, BALANCER):
            lab.flowscope("mesh", "delete", *store, "-f", "-", input=text)


NODE_PORT = (
    BALANCER.replace("by-tcp", "from-outside")
    .replace("spec: {selector", "spec: {type: NodePort, selector")
    .replace("port: 8080}", "port: 8080, nodePort: 31808}")
)
ONLY_THE_BACKENDS = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: from-outside, namespace: cilium-test}
spec:
  endpointSelector: {matchLabels: {name: client2}}
  egress:
  - toEndpoints: [{matchLabels: {kind: echo}}]
"""
THE_BALANCER_TOO = ONLY_THE_BACKENDS + "  - {toEntities: [ingress], toPorts: [{ports: [{port: '31808'}]}]}\n"


def test_who_would_be_hidden_from_backends_has_to_be_allowed_to_ask_the_balancer(lab: Lab) -> None:
    store = ("--store", str(lab.run_dir / "store"))
    address = f"{lab.status()['nodes'][0]['ips'][0]}:31808"

    def apply(text: str) -> None:
        done = lab.flowscope("mesh", "apply", *store, "--wait", "-f", "-", input=text)
        assert done.returncode == 0, done.stderr

    def ask(client: str) -> str:
        return lab.exec(client, "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", address).stdout

    def refusals(since: str) -> list[dict[str, Any]]:
        chosen = ("--server", lab.relay, "--since", since, "--from-pod", "cilium-test/client2", "--type", "l7")
        lines = lab.flowscope("observe", *chosen, "--verdict", "DROPPED", "-o", "jsonpb").stdout.splitlines()
        return [json.loads(line)["flow"] for line in lines]

    try:
        apply(NODE_PORT)
        eventually(lambda: ask("client2") == "200", WAIT_S)
        since = datetime.now(UTC).isoformat()
        apply(ONLY_THE_BACKENDS)
        eventually(lambda: ask("client2") == "000", WAIT_S)
        assert ask("client") == "200", "it has no policy"
        eventually(lambda: bool(refusals(since)), WAIT_S)
        refused = refusals(since)[0]
        assert refused["l7"] == {"type": "REQUEST"}
        assert refused["l4"]["TCP"]["destination_port"] == 31808
        apply(THE_BALANCER_TOO)
        eventually(lambda: ask("client2") == "200", WAIT_S)
    finally:
        for text in (ONLY_THE_BACKENDS, NODE_PORT):
            lab.flowscope("mesh", "delete", *store, "-f", "-", input=text)
