"""Addresses out of pools, and who announces them."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.cluster import Cluster
from mesh.controller import reconcile
from mesh.resources.base import Condition, Resource, changed
from mesh.resources.cluster import Node
from mesh.resources.manifests import parse_manifests
from mesh.resources.services import Service
from mesh.services.announcing import announced
from mesh.services.kinds import CiliumLoadBalancerIPPool, Lease
from tests.support.cluster import node, settled
from tests.unit.mesh.services.test_kinds import METALLB


def pool(name: str, spec: str) -> Resource:
    text = f"apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}"
    return parse_manifests(text)[0]


def service(name: str, spec: str = "", /, labels: str = "", **annotations: str) -> Resource:
    notes = ", ".join(f"{key.replace('__', '/').replace('_', '-')}: '{value}'" for key, value in annotations.items())
    text = (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}},"
        f" annotations: {{{notes}}}}}\nspec: {{type: LoadBalancer, ports: [{{port: 80}}], {spec}}}"
    )
    return parse_manifests(text)[0]


def addresses(resources: list[Resource]) -> dict[str, tuple[str, ...]]:
    return {one.name: one.balancer_ips for one in resources if isinstance(one, Service)}


def reason(resources: list[Resource], name: str) -> str:
    found = next(one for one in resources if isinstance(one, Service) and one.name == name)
    return found.status.conditions[0].reason if found.status.conditions else ""


def conditions(resources: list[Resource], name: str) -> dict[str, str]:
    found = next(one for one in resources if isinstance(one, CiliumLoadBalancerIPPool) and one.name == name)
    return {one.type.removeprefix("cilium.io/"): one.message or one.reason for one in found.status.conditions}


BLUE = "blocks: [{start: 172.18.255.200, stop: 172.18.255.202}]"


def test_the_first_service_gets_the_first_address_of_the_reference_s_pool() -> None:
    state = settled([*parse_manifests(METALLB), service("web"), node(0), node(1)])
    assert addresses(state)["web"] == ("172.18.255.200",)
    assert not reconcile(state)


def test_addresses_are_given_in_order_and_kept_when_others_go() -> None:
    state = settled([pool("blue", BLUE), service("a"), service("b")])
    assert addresses(state) == {"a": ("172.18.255.200",), "b": ("172.18.255.201",)}
    assert conditions(state, "blue") == {
        "PoolConflict": "resolved", "IPsTotal": "3", "IPsAvailable": "1", "IPsUsed": "2",
    }  # fmt: skip
    later = settled([one for one in state if one.name != "a"] + [service("c")])
    assert addresses(later) == {"b": ("172.18.255.201",), "c": ("172.18.255.200",)}


def test_nothing_happens_without_a_pool_and_addresses_go_with_it() -> None:
    assert reason(settled([service("a")]), "a") == ""
    state = settled([pool("blue", BLUE), service("a")])
    without = settled([one for one in state if one.kind == "Service"])
    assert addresses(without) == {"a": ()}
    assert reason(without, "a") == ""


def test_a_full_pool_says_so() -> None:
    state = settled([pool("one", "blocks: [{start: 172.18.255.200}]"), service("a"), service("b")])
    assert addresses(state) == {"a": ("172.18.255.200",), "b": ()}
    assert (reason(state, "a"), reason(state, "b")) == ("satisfied", "out_of_ips")


def test_first_and_last_address_can_be_kept_out_of_a_cidr_but_not_of_a_range() -> None:
    def total(spec: str) -> str:
        return conditions(settled([pool("p", spec)]), "p")["IPsTotal"]

    assert total("blocks: [{cidr: 172.18.255.0/29}]") == "8"
    assert total("blocks: [{cidr: 172.18.255.0/29}], allowFirstLastIPs: 'No'") == "6"
    assert total("blocks: [{cidr: 172.18.255.0/31}], allowFirstLastIPs: 'No'") == "2"
    assert total("blocks: [{start: 172.18.255.0, stop: 172.18.255.7}], allowFirstLastIPs: 'No'") == "8"
    assert total("blocks: [{cidr: 'fd00::/64'}], allowFirstLastIPs: 'No'") == str(2**64 - 2)


def test_a_disabled_pool_gives_nothing_new_and_takes_nothing_away() -> None:
    state = settled([pool("blue", BLUE), service("a")])
    disabled = [one for one in state if one.kind == "Service"] + [pool("blue", BLUE + ", disabled: true")]
    assert addresses(settled([*disabled, service("b")])) == {"a": ("172.18.255.200",), "b": ()}


def test_a_pool_serves_whom_it_selects_by_label_name_or_namespace() -> None:
    for selector in (
        "{matchLabels: {tier: front}}",
        "{matchLabels: {io.kubernetes.service.name: a}}",
        "{matchExpressions: [{key: tier, operator: Exists}]}",
    ):
        state = settled(
            [pool("p", f"{BLUE}, serviceSelector: {selector}"), service("a", labels="tier: front"), service("b")]
        )
        assert addresses(state) == {"a": ("172.18.255.200",), "b": ()}
        assert reason(state, "b") == "no_pool"


def test_addresses_can_be_asked_for() -> None:
    key = {"lbipam.cilium.io__ips": "172.18.255.202,172.18.255.201"}
    state = settled([pool("blue", BLUE), service("a", **key), service("b", "loadBalancerIP: 172.18.255.200")])
    assert addresses(state) == {"a": ("172.18.255.202", "172.18.255.201"), "b": ("172.18.255.200",)}
    taken = settled([*state, service("c", "loadBalancerIP: 172.18.255.200")])
    assert reason(taken, "c") == "already_allocated"
    assert reason(settled([pool("blue", BLUE), service("a", "loadBalancerIP: 192.0.2.1")]), "a") == "no_pool"
    choosy = pool("blue", f"{BLUE}, serviceSelector: {{matchLabels: {{x: y}}}}")
    state = settled([choosy, service("a", "loadBalancerIP: 172.18.255.200")])
    assert reason(state, "a") == "pool_selector_mismatch"


def test_services_share_an_address_by_key_when_their_ports_differ() -> None:
    key = {"lbipam.cilium.io__sharing_key": "k"}
    other_port = changed(service("b", **key))
    assert isinstance(other_port, Service)
    port = changed(other_port.spec.ports[0], port=81)
    other_port = changed(other_port, spec=changed(other_port.spec, ports=(port,)))
    state = settled([pool("blue", BLUE), service("a", **key), other_port, service("c", **key)])
    assert addresses(state) == {"a": ("172.18.255.200",), "b": ("172.18.255.200",), "c": ("172.18.255.201",)}


def test_two_families_are_preferred_or_required() -> None:
    state = settled([pool("blue", BLUE), service("a", "ipFamilyPolicy: PreferDualStack")])
    assert reason(state, "a") == "satisfied"
    state = settled([pool("blue", BLUE), service("a", "ipFamilyPolicy: RequireDualStack")])
    assert reason(state, "a") == "no_pool"
    both = pool("blue", "blocks: [{cidr: 172.18.255.0/24}, {cidr: 'fd00:1::/64'}]")
    state = settled([both, service("a", "ipFamilyPolicy: RequireDualStack")])
    assert addresses(state)["a"] == ("172.18.255.0", "fd00:1::")


def test_of_two_pools_that_overlap_the_later_one_waits() -> None:
    state = settled([pool("blue", BLUE)])
    state = settled([*state, pool("azure", "blocks: [{cidr: 172.18.255.0/24}]"), service("a"), service("b")])
    assert conditions(state, "azure")["PoolConflict"] == (
        "range '172.18.255.0 - 172.18.255.255' overlaps range '172.18.255.200 - 172.18.255.202' of pool blue"
    )
    assert conditions(state, "blue")["PoolConflict"] == "resolved"
    assert addresses(state) == {"a": ("172.18.255.200",), "b": ("172.18.255.201",)}
    assert not reconcile(state)
    freed = settled([one for one in state if one.name != "blue"])
    assert conditions(freed, "azure")["PoolConflict"] == "resolved"
    inside = settled([pool("odd", "blocks: [{cidr: 10.9.0.0/16}, {cidr: 10.9.8.0/24}]")])
    assert conditions(inside, "odd")["PoolConflict"] == "spec.blocks[1] overlaps spec.blocks[0] of the same pool"


def test_services_of_other_classes_are_left_alone() -> None:
    state = settled([pool("blue", BLUE), service("a", "loadBalancerClass: example.com/other")])
    assert addresses(state) == {"a": ()}
    assert reason(state, "a") == ""


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=12))
def test_no_address_has_two_services_and_nobody_loses_one(steps: list[tuple[str, bool]]) -> None:
    state = settled([pool("blue", "blocks: [{start: 10.0.0.1, stop: 10.0.0.4}]")])
    for name, there in steps:
        before = addresses(state)
        rest = [one for one in state if one.name != name or not isinstance(one, Service)]
        old = [one for one in state if one.name == name and isinstance(one, Service)]
        state = settled([*rest, *old, *([] if old else [service(name)])] if there else rest)
        after = addresses(state)
        given = [ip for ips in after.values() for ip in ips]
        assert len(set(given)) == len(given)
        assert all(after[one] == before[one] for one in after.keys() & before.keys() if before[one])


# ---- announcements ----

POLICY = """
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata: {name: l2}
spec:
  nodeSelector: {matchExpressions: [{key: node-role.kubernetes.io/control-plane, operator: DoesNotExist}]}
  interfaces: ["^eth[0-9]+"]
  loadBalancerIPs: true
"""


def holder(resources: list[Resource]) -> str:
    leases = [one for one in resources if isinstance(one, Lease)]
    assert [one.name for one in leases] == ["cilium-l2announce-shop-a"]
    return leases[0].spec.holder_identity


def who_answers(resources: list[Resource], device: str = "eth0") -> dict[str, set[str]]:
    cluster = Cluster(resources)
    return {one.name: {str(ip) for ip in announced(cluster, one.name, [device])} for one in cluster.nodes()}


def test_one_node_answers_for_a_service_and_another_takes_over() -> None:
    control = node(0, "kind-control-plane", **{"node-role.kubernetes.io/control-plane": ""})
    state = settled([pool("blue", BLUE), *parse_manifests(POLICY), service("a"), control, node(1), node(2)])
    first = holder(state)
    assert first in ("kind-worker1", "kind-worker2")
    assert {name: ips for name, ips in who_answers(state).items() if ips} == {first: {"172.18.255.200"}}
    assert not any(who_answers(state, "wlan0").values())
    assert holder(settled([*state, node(3), node(4)])) == first, "a new node does not take it away"
    state = settled([one for one in state if one.name != first])
    assert holder(state) not in ("", first)
    assert not any(isinstance(one, Lease) for one in settled([one for one in state if one.name != "a"]))


def test_a_node_that_is_not_ready_does_not_answer() -> None:
    state = settled([*parse_manifests(METALLB), service("a"), node(0), node(1)])
    first = holder(state)
    sick = (Condition(type="Ready", status="Unknown"),)
    after = settled(
        [
            changed(one, status=changed(one.status, conditions=sick)) if isinstance(one, Node) and one.name == first
            else one
            for one in state
        ]
    )  # fmt: skip
    assert holder(after) not in ("", first)


def test_addresses_of_pools_that_nobody_announces_stay_silent() -> None:
    state = settled([pool("blue", BLUE), service("a"), node(0)])
    assert addresses(state)["a"]
    assert not any(who_answers(state).values())


def test_only_a_node_with_a_backend_answers_for_a_local_service() -> None:
    local = service("a", "externalTrafficPolicy: Local, selector: {app: web}")
    web = parse_manifests(
        "{apiVersion: v1, kind: Pod, metadata: {name: w, namespace: shop, labels: {app: web}, uid: u},"
        " spec: {nodeName: kind-worker1, containers: [{name: c, image: pause}]}}"
    )
    state = settled(settled([*parse_manifests(METALLB), local, *web, node(0), node(1), node(2)]), all_ready=True)
    assert holder(state) == "kind-worker1"
    assert str(ip_address("172.18.255.200")) in who_answers(state)["kind-worker1"]
