"""What a node knows."""

from __future__ import annotations

from typing import Any

import pytest

from model.address import Address, parse_address
from model.knowledge import CachedAddress, InvalidState, Knowledge
from model.tables import Node, Service


def address(text: str) -> Address:
    found = parse_address(text)
    assert found is not None
    return found


def test_an_empty_state_knows_nothing() -> None:
    knowledge = Knowledge.from_json({})
    assert knowledge == Knowledge()
    assert knowledge.endpoint_message(address("10.0.0.1"), 7).identity == 7


def test_lists_may_be_null() -> None:
    assert Knowledge.from_json({"ipcache": None, "local_endpoints": None, "links": None}) == Knowledge()


def test_the_longest_prefix_gives_the_identity_but_only_the_address_itself_a_pod() -> None:
    knowledge = Knowledge.from_json(
        {
            "ipcache": [
                {"prefix": "0.0.0.0/0", "identity": 2},
                {"prefix": "10.0.0.0/8", "identity": 100},
                {"prefix": "10.1.0.0/16", "identity": 101, "pod": "none"},
                {"prefix": "10.1.2.3", "identity": 102, "namespace": "shop", "pod": "web"},
                {"prefix": "2001:db8::/32", "identity": 10},
            ]
        }
    )
    identities = {text: knowledge.cached(address(text)).identity for text in ("1.1.1.1", "10.9.9.9", "10.1.2.4")}
    assert identities == {"1.1.1.1": 2, "10.9.9.9": 100, "10.1.2.4": 101}
    assert knowledge.cached(address("10.1.2.4")).pod == ""
    assert knowledge.cached(address("10.1.2.3")) == CachedAddress(102, "shop", "web")
    assert knowledge.cached(address("2001:db8::1")).identity == 10
    assert knowledge.cached(address("2001:db9::1")).identity == 0


def test_families_do_not_mix() -> None:
    knowledge = Knowledge.from_json({"ipcache": [{"prefix": "0.0.0.1", "identity": 5}]})
    assert knowledge.cached(address("0.0.0.1")).identity == 5
    assert knowledge.cached(address("::1")).identity == 0


def test_a_service_on_tcp_is_preferred() -> None:
    frontends = [
        {"ip": "10.96.0.10", "port": 53, "proto": "UDP", "name": "udp", "namespace": "a"},
        {"ip": "10.96.0.10", "port": 53, "proto": "TCP", "name": "tcp", "namespace": "a"},
        {"ip": "10.96.0.10", "port": 9153, "proto": "UDP", "name": "udp", "namespace": "a"},
    ]
    knowledge = Knowledge.from_json({"services": frontends})
    assert knowledge.service(address("10.96.0.10"), 53) == Service("tcp", "a")
    assert knowledge.service(address("10.96.0.10"), 9153) == Service("udp", "a")
    assert knowledge.service(address("10.96.0.10"), 1) is None
    assert knowledge.service(None, 53) is None


def test_the_event_knows_identities_best() -> None:
    state = {
        "local_endpoints": [{"id": 5, "ipv4": "10.0.0.1", "identity": 50, "labels": ["k8s:b=1", "k8s:a=1"]}],
        "identities": [{"id": 60, "labels": ["k8s:other"]}],
    }
    message = Knowledge.from_json(state).endpoint_message(address("10.0.0.1"), 60)
    assert (message.ID, message.identity, list(message.labels)) == (5, 60, ["k8s:a=1", "k8s:b=1"])


def test_the_node_is_named_by_the_state() -> None:
    knowledge = Knowledge.from_json({"node_name": "worker", "node_labels": {"b": "2", "a": "1"}})
    assert knowledge.node(boot=3, version="1.0") == Node("worker", ("a=1", "b=2"), 3, "1.0")


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ([], "state"),
        ({"ipcache": [{"prefix": "10.0.0.0/8", "identity": 1}, {"prefix": "nonsense", "identity": 1}]}, "ipcache[1]"),
        ({"local_endpoints": [{"ipv4": "10.0.0.1"}]}, "local_endpoints[0]: 'id' is missing"),
        ({"local_endpoints": [{"id": 1, "ipv4": "ten"}]}, "'ten' is no IP address"),
        ({"services": [{"ip": "10.0.0.1"}]}, "services[0]"),
        ({"services": [7]}, "services[0]"),
    ],
)
def test_a_broken_state_is_refused_by_name_of_the_part(state: Any, place: str) -> None:
    with pytest.raises(InvalidState) as caught:
        Knowledge.from_json(state)
    assert place in str(caught.value)
