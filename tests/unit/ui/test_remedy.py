"""Rules that the page offers for what was refused: valid, and no wider than the flow."""

from __future__ import annotations

from typing import Any

import pytest
import re2
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mesh.policy.documents.cilium import CiliumNetworkPolicy
from mesh.resources.manifests import parse_manifests
from proto.flow import flow_pb2
from ui.remedy import remedy

CLIENT = flow_pb2.Endpoint(
    namespace="web",
    pod_name="client-1",
    workloads=[flow_pb2.Workload(name="client", kind="Deployment")],
    labels=["k8s:app=client", "k8s:io.kubernetes.pod.namespace=web", "k8s:pod-template-hash=1"],
)
CART = flow_pb2.Endpoint(namespace="shop", pod_name="cart-1", labels=["k8s:app=cart"])
PORT = flow_pb2.Layer4(TCP=flow_pb2.TCP(source_port=40000, destination_port=8080))


def told(ingress: bool = False, **fields: Any) -> dict[str, Any]:
    """The policy for a flow from client to cart; its shape is checked as `mesh apply` does."""
    everything: dict[str, Any] = {"source": CLIENT, "destination": CART, "l4": PORT, **fields}
    text = remedy(flow_pb2.Flow(**everything), ingress)
    if not text:
        return {}
    assert len(parse_manifests(text)) == 1
    policy: dict[str, Any] = yaml.safe_load(text)
    return policy


def http(method: str, url: str) -> dict[str, Any]:
    record = flow_pb2.HTTP(method=method, url=url)
    return {"Type": flow_pb2.L7, "l7": flow_pb2.Layer7(type=flow_pb2.REQUEST, http=record)}


def reserved(name: str) -> flow_pb2.Endpoint:
    return flow_pb2.Endpoint(labels=[f"reserved:{name}"])


def test_a_refused_request_gets_a_rule_with_its_method_and_path() -> None:
    policy = told(**http("GET", "http://cart:8080/private?page=1"))
    assert (policy["kind"], policy["metadata"]) == (
        "CiliumNetworkPolicy",
        {"name": "allow-client-to-cart-http", "namespace": "web"},
    )
    assert policy["spec"] == {
        "endpointSelector": {"matchLabels": {"app": "client"}},
        "egress": [
            {
                "toEndpoints": [{"matchLabels": {"app": "cart", "k8s:io.kubernetes.pod.namespace": "shop"}}],
                "toPorts": [
                    {
                        "ports": [{"port": "8080", "protocol": "TCP"}],
                        "rules": {"http": [{"method": "GET", "path": "/private\\?page=1"}]},
                    }
                ],
            }
        ],
    }


def test_a_request_that_the_server_s_side_refused_is_allowed_there() -> None:
    policy = told(ingress=True, **http("POST", "/"))
    assert policy["metadata"]["namespace"] == "shop"
    [rule] = policy["spec"]["ingress"]
    assert rule["fromEndpoints"] == [{"matchLabels": {"app": "client", "k8s:io.kubernetes.pod.namespace": "web"}}]
    assert rule["toPorts"][0]["rules"] == {"http": [{"method": "POST", "path": "/"}]}


def test_a_refused_name_gets_a_dns_rule() -> None:
    record = flow_pb2.Layer7(type=flow_pb2.REQUEST, dns=flow_pb2.DNS(query="example.com.", qtypes=["A"]))
    udp = flow_pb2.Layer4(UDP=flow_pb2.UDP(destination_port=53))
    policy = told(Type=flow_pb2.L7, l7=record, l4=udp)
    assert policy["spec"]["egress"][0]["toPorts"] == [
        {"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": [{"matchName": "example.com"}]}}
    ]


@pytest.mark.parametrize("name", ["host", "remote-node", "ingress", "kube-apiserver", "health"])
def test_peers_that_no_address_picks_are_allowed_by_their_name(name: str) -> None:
    address = flow_pb2.IP(source="172.18.0.2", destination="10.0.0.1")
    policy = told(ingress=True, source=reserved(name), IP=address)
    assert policy["kind"] == "CiliumNetworkPolicy"
    assert policy["spec"]["ingress"] == [
        {"fromEntities": [name], "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}]}
    ]


def test_the_world_is_allowed_by_address_or_by_name_where_requests_are_judged() -> None:
    address = flow_pb2.IP(source="10.0.0.1", destination="192.0.2.7")
    world: dict[str, Any] = {"destination": reserved("world"), "IP": address}
    assert told(**world)["spec"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "192.0.2.7/32"}}]
    assert told(**world, **http("GET", "/"))["spec"]["egress"][0]["toCIDR"] == ["192.0.2.7/32"]
    named = told(**world, **http("GET", "/"), destination_names=["one.example"])
    assert named["spec"]["egress"][0]["toFQDNs"] == [{"matchName": "one.example"}]


@pytest.mark.parametrize(("version", "kind"), [(4, 8), (6, 128)])
def test_an_echo_is_allowed_by_its_type_and_nothing_else_is(version: int, kind: int) -> None:
    made = flow_pb2.ICMPv4(type=kind) if version == 4 else flow_pb2.ICMPv6(type=kind)
    policy = told(l4=flow_pb2.Layer4(**{f"ICMPv{version}": made}))
    [rule] = policy["spec"]["egress"]
    assert rule["icmps"] == [{"fields": [{"family": f"IPv{version}", "type": kind}]}]


@pytest.mark.parametrize(
    "fields",
    [
        {"source": reserved("host")},
        {"source": flow_pb2.Endpoint(namespace="web", pod_name="bare")},
        {"destination": flow_pb2.Endpoint()},
        {"l4": flow_pb2.Layer4()},
        {"Type": flow_pb2.L7, "l7": flow_pb2.Layer7(kafka=flow_pb2.Kafka(topic="orders"))},
        {"Type": flow_pb2.L7, "l7": flow_pb2.Layer7(dns=flow_pb2.DNS(query="<script>"))},
        http("GET", "/" + "x" * 5000),
    ],
)
def test_what_no_policy_can_say_gets_no_rule(fields: dict[str, Any]) -> None:
    assert told(**fields) == {}


@given(
    path=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    method=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8),
    other=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
)
def test_any_path_is_allowed_as_it_stands_and_no_other_is(path: str, method: str, other: str) -> None:
    policy = told(**http(method, f"http://cart:8080/{path}"))
    [rule] = policy["spec"]["egress"][0]["toPorts"][0]["rules"]["http"]
    assert re2.fullmatch(rule["path"], f"/{path}")
    assert re2.fullmatch(rule["method"], method)
    assert bool(re2.fullmatch(rule["path"], f"/{other}")) == (other == path)


def test_policies_of_this_kind_are_the_mesh_s_own() -> None:
    [policy] = parse_manifests(
        remedy(flow_pb2.Flow(source=CLIENT, destination=CART, l4=PORT, **http("GET", "/")), False)
    )
    assert isinstance(policy, CiliumNetworkPolicy)
