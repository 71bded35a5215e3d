"""CiliumEnvoyConfig with a real Envoy: the reference configuration, whose address is used, what Envoy refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.envoyconfig import validation
from mesh.resources.manifests import parse_manifests
from mesh.resources.mistakes import InvalidResource
from tests.support.loopback_envoy import INGRESS, Running, Server, running, service_of, told_in
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel  # sockets with addresses of others

SEED = (Path(__file__).parents[4] / "lab/manifests/walk/cilium-envoy-config.yaml").read_text()
NAMES = ("echo-same-node", "echo-other-node")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    found = {name: Server(name, f"127.0.1.{number}") for number, name in enumerate(NAMES, 1)}
    yield found
    for one in found.values():
        one.close()


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Envoy leaves them."""
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def envoy(servers: dict[str, Server], records: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    text = "".join(service_of(one, "cilium-test") for one in servers.values()) + "\n---\n" + SEED
    with running(parse_manifests(text), tmp_path_factory.mktemp("envoy"), told=records) as found:
        yield found


def test_a_path_is_rewritten_and_the_answer_says_it_came_through_envoy(envoy: Running) -> None:
    answer = envoy.get("envoy-lb-listener", "/foo", host="echo-same-node:8080")
    assert answer.status == 200
    assert answer.seen["path"] == "/"
    assert answer.seen["headers"]["host"] == "echo-same-node:8080"
    assert answer.headers["server"] == "envoy"
    assert answer.headers["x-envoy-upstream-service-time"].isdecimal()


def test_other_paths_stay(envoy: Running) -> None:
    assert envoy.get("envoy-lb-listener", "/bar").seen["path"] == "/bar"


def test_requests_are_split_in_halves(envoy: Running) -> None:
    counts = Counter(envoy.get("envoy-lb-listener", "/").seen["name"] for _ in range(200))
    # 200 fair coins: outside of this once in 25,000,000 runs.
    assert all(62 <= counts[name] <= 138 for name in NAMES), counts


def test_errors_are_tried_again(envoy: Running, servers: dict[str, Server]) -> None:
    before = sum(len(one.seen) for one in servers.values())
    assert envoy.get("envoy-lb-listener", "/status/503").status == 503
    assert sum(len(one.seen) for one in servers.values()) - before == 4


def test_each_try_is_told_and_the_client_sees_the_last_one(
    envoy: Running, servers: dict[str, Server], records: Path
) -> None:
    for one in servers.values():
        one.failing = 2
    try:
        answer = envoy.get("envoy-lb-listener", "/again")
    finally:
        for one in servers.values():
            one.failing = 0
    assert answer.status == 200
    told: list[dict[str, str]] = []

    def is_whole() -> bool:
        told.extend(one for one in told_in(records, 0) if one["url"].endswith("/again"))
        return len(told) == 6

    eventually(is_whole)
    assert [(one["type"], one["code"]) for one in told] == [
        ("Request", ""),
        ("Response", "503"),
        ("Request", ""),
        ("Response", "503"),
        ("Request", ""),
        ("Response", "200"),
    ]
    assert {one["request_id"] for one in told} == {answer.seen["headers"]["x-request-id"]}


def test_a_pod_of_the_node_keeps_its_address_and_others_come_from_the_ingress_address(envoy: Running) -> None:
    assert envoy.get("envoy-lb-listener", "/", source="127.0.9.7").seen["client"] == "127.0.9.7"
    assert envoy.get("envoy-lb-listener", "/", source="127.0.0.5").seen["client"] == str(INGRESS)


def test_a_header_does_not_change_whose_address_is_used(envoy: Running) -> None:
    answer = envoy.get("envoy-lb-listener", "/", source="127.0.9.7", headers={"X-Forwarded-For": "127.0.9.9"})
    assert answer.seen["client"] == "127.0.9.7"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("connect_timeout: 5s", "connect_timeout: -5s", "spec.resources[2]: Invalid duration: Expected positive"),
        ("^/foo.*$", "^/foo(.*$", "spec.resources[1]: missing ): ^/foo(.*$"),
        ('["*"]', "[]", "spec.resources[1]: RouteConfig.VirtualHosts[0].Domains: value must contain at least 1"),
        ("filters.http.router", "filters.http.rooter", "spec.resources[0]: Didn't find a registered implementation"),
    ],
)
def test_what_envoy_refuses_is_refused_with_its_own_words(old: str, new: str, complaint: str) -> None:
    assert old in SEED
    with pytest.raises(InvalidResource) as error:
        validation.check(parse_manifests(SEED.replace(old, new, 1))[0], "cec.yaml: document 1")
    text = str(error.value)
    place, _, reason = complaint.partition(": ")
    where = "cec.yaml: document 1 (CiliumEnvoyConfig default/envoy-lb-listener)"
    assert text.startswith(f"{where}: {place}: Envoy refuses it: {reason}")
    assert "\n" not in text


def test_envoy_has_nothing_against_the_reference_configuration() -> None:
    validation.check(parse_manifests(SEED)[0], "cec.yaml: document 1")
