"""A node's policies over time: what a change touches, and what it leaves alone."""

from __future__ import annotations

from ipaddress import ip_network

from mesh.policy.compiling import Subject
from mesh.policy.documents.kinds import policies_among
from mesh.policy.local import FIRST, labels_of
from mesh.policy.node import NodePolicies, idle_selectors
from mesh.resources.base import Metadata, Resource
from mesh.resources.cluster import CiliumIdentity
from mesh.resources.manifests import parse_manifests

WEB, DB = Subject(256), Subject(257)


def identity(number: int, app: str) -> CiliumIdentity:
    labels = {"k8s:app": app, "k8s:io.kubernetes.pod.namespace": "default"}
    return CiliumIdentity(
        api_version="cilium.io/v2", kind="CiliumIdentity", metadata=Metadata(name=str(number)), security_labels=labels
    )


CLUSTER: list[Resource] = [identity(256, "web"), identity(257, "db")]


def policy(name: str, spec: str, subject: str = "web") -> list[Resource]:
    return parse_manifests(
        f"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}}}\n"
        f"spec: {{endpointSelector: {{matchLabels: {{app: {subject}}}}}, {spec}}}\n"
    )


def test_endpoints_with_the_same_labels_share_one_policy_and_others_are_left_alone() -> None:
    node = NodePolicies()
    endpoints = {1: WEB, 2: WEB, 3: DB}
    done = node.update([*CLUSTER, *policy("p", "ingress: [{fromEndpoints: [{}]}]")], endpoints)
    assert done.policies[1] is done.policies[2]
    assert not done.policies[3].enforced
    again = node.update([*CLUSTER, *policy("p", "ingress: [{fromEndpoints: [{}]}]")], endpoints)
    assert again.policies[1] is done.policies[1], "nothing has changed"


def test_a_new_identity_joins_the_policies_that_select_it() -> None:
    node = NodePolicies()
    resources = [*CLUSTER, *policy("p", "ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]")]
    before = node.update(resources, {1: WEB}).policies[1]
    after = node.update([*resources, identity(300, "db")], {1: WEB}).policies[1]
    assert {entry.identity for entry in before.entries} == {1, 257}
    assert {entry.identity for entry in after.entries} == {1, 257, 300}


def test_prefixes_have_numbers_that_outlive_the_agent() -> None:
    resources = [*CLUSTER, *policy("p", "egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]")]
    first = NodePolicies()
    numbers = first.update(resources, {1: WEB}).ipcache
    assert sorted(map(str, numbers)) == ["10.0.0.0/8", "10.1.0.0/16"]
    assert min(numbers.values()) == FIRST
    second = NodePolicies()
    second.local.restore(numbers)
    decided = second.update(resources, {1: WEB})
    assert decided.ipcache == numbers
    assert [entry.identity for entry in decided.policies[1].entries] == [numbers[ip_network("10.0.0.0/8")]]


def test_a_prefix_that_is_dropped_means_something_until_the_ipcache_has_forgotten_it() -> None:
    node = NodePolicies()
    wide = policy("wide", "egress: [{toCIDR: [10.0.0.0/8]}]")
    number = node.update([*CLUSTER, *wide, *policy("narrow", "egress: [{toCIDR: [10.1.0.0/16]}]")], {1: WEB}).ipcache[
        ip_network("10.1.0.0/16")
    ]
    changing = node.update([*CLUSTER, *wide], {1: WEB})
    assert ip_network("10.1.0.0/16") not in changing.ipcache
    assert number in {entry.identity for entry in changing.policies[1].entries}, "packets may still have it"
    later = node.update([*CLUSTER, *wide], {1: WEB})
    assert number not in {entry.identity for entry in later.policies[1].entries}


def test_rules_that_do_not_go_together_leave_the_old_policy_in_force() -> None:
    node = NodePolicies()
    ports = "ports: [{port: '80', protocol: TCP}]"
    http = policy("a", f"egress: [{{toPorts: [{{{ports}, rules: {{http: [{{}}]}}}}]}}]")
    kafka = policy("b", f"egress: [{{toPorts: [{{{ports}, rules: {{kafka: [{{}}]}}}}]}}]")
    before = node.update([*CLUSTER, *http], {1: WEB})
    after = node.update([*CLUSTER, *http, *kafka], {1: WEB})
    assert after.policies[1] == before.policies[1]
    assert [*map(str, after.problems)] == [
        "CiliumNetworkPolicy default/a, CiliumNetworkPolicy default/b: endpoint 1 (identity 256):"
        " port 80 has http rules and kafka rules for one endpoint; the old policy stays"
    ]
    # Without an old one, nothing passes.
    first = NodePolicies().update([*CLUSTER, *http, *kafka], {1: WEB, 2: WEB})
    assert "endpoints 1, 2 (identity 256)" in str(first.problems[0])
    assert str(first.problems[0]).endswith("; nothing passes")
    fresh = first.policies[1]
    assert (fresh.enforced_ingress, fresh.enforced_egress, fresh.entries) == (True, True, ())


def test_a_policy_that_no_map_can_hold_is_refused_as_a_whole() -> None:
    node = NodePolicies()
    many = ", ".join(f"'10.{high}.{low}.0/24'" for high in range(128) for low in range(130))
    small = policy("p", "egress: [{toCIDR: [10.0.0.0/8]}]")
    before = node.update([*CLUSTER, *small], {1: WEB}).policies[1]
    decided = node.update([*CLUSTER, *policy("p", f"egress: [{{toCIDR: [{many}]}}]")], {1: WEB})
    assert decided.policies[1] == before
    assert "of 16384" in str(decided.problems[0])


def test_policies_of_the_cluster_reach_every_namespace() -> None:
    text = (
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: c}\n"
        "spec: {endpointSelector: {}, ingressDeny: [{fromEntities: [world]}], enableDefaultDeny: {ingress: false}}\n"
    )
    decided = NodePolicies().update([*CLUSTER, *parse_manifests(text)], {1: WEB, 2: DB})
    assert all(policy.enforced_ingress and not policy.enforced_egress for policy in decided.policies.values())


def test_a_subject_that_nobody_is_is_worth_a_warning() -> None:
    documents = policies_among([*policy("p", "ingress: [{}]", subject="wbe"), *policy("q", "ingress: [{}]")])
    assert idle_selectors(documents, CLUSTER) == ["CiliumNetworkPolicy default/p: rule 1 selects no pod"]


def test_ipv6_prefixes_have_labels_without_colons() -> None:
    assert labels_of(ip_network("::/64"))[0] == "cidr:0--0/64"
    assert labels_of(ip_network("2001:db8::/32"))[0] == "cidr:2001-db8--0/32"
