"""A node's policies over time: what a change touches, and what it leaves alone."""

from __future__ import annotations

from copy import deepcopy
from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from bpf.policies import EndpointPolicy
from mesh.identities import HOST, UNKNOWN
from mesh.policy.compiling import Subject
from mesh.policy.documents.fields import Network
from mesh.policy.documents.kinds import policies_among
from mesh.policy.local import FIRST, labels_of
from mesh.policy.node import NodePolicies, idle_selectors
from mesh.policy.nodes import FIRST as NODES
from mesh.policy.peers import INIT
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
    dns = policy("b", f"egress: [{{toPorts: [{{{ports}, rules: {{dns: [{{matchPattern: '*'}}]}}}}]}}]")
    before = node.update([*CLUSTER, *http], {1: WEB})
    after = node.update([*CLUSTER, *http, *dns], {1: WEB})
    assert after.policies[1] == before.policies[1]
    assert [*map(str, after.problems)] == [
        "CiliumNetworkPolicy default/a, CiliumNetworkPolicy default/b: endpoint 1 (identity 256):"
        " port 80 has http rules and dns rules for one endpoint; the old policy stays"
    ]
    # Without an old one, nothing passes.
    first = NodePolicies().update([*CLUSTER, *http, *dns], {1: WEB, 2: WEB})
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


def nodes(**roles: str) -> list[Resource]:
    text = [
        f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{role: {role}}}}}\n"
        f"status: {{addresses: [{{type: InternalIP, address: 172.18.0.{number}}}]}}\n"
        for number, (name, role) in enumerate(roles.items(), 2)
    ]
    return parse_manifests("---\n".join(text))


def host_policy(spec: str, selector: str = "{}") -> list[Resource]:
    return parse_manifests(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: hosts}\n"
        f"spec: {{nodeSelector: {selector}, {spec}}}\n"
    )


ME: dict[int, Subject] = {1: Subject(1), 7: WEB}


def test_a_policy_about_nodes_is_about_those_with_its_labels_and_about_no_pod() -> None:
    resources = [*CLUSTER, *nodes(here="front", there="back")]
    front, back = (f"{{matchLabels: {{role: {role}}}}}" for role in ("front", "back"))
    for selector, selected in (("{}", True), (front, True), (back, False)):
        node = NodePolicies(node_name="here")
        done = node.update([*resources, *host_policy("ingress: [{}]", selector)], ME)
        assert (done.policies[1].enforced_ingress, done.policies[7].enforced) == (selected, False)
    assert not NodePolicies().update([*resources, *host_policy("ingress: [{}]")], ME).policies[1].enforced
    everything = policy("p", "ingress: [{}]")
    assert not NodePolicies(node_name="here").update([*resources, *everything], ME).policies[1].enforced


def test_nodes_are_told_apart_while_a_rule_asks_who_they_are() -> None:
    node = NodePolicies(node_name="here")
    resources = [*CLUSTER, *nodes(here="front", there="back", yonder="back")]
    asking = policy("p", "ingress: [{fromNodes: [{matchLabels: {role: back}}]}, {fromEntities: [remote-node]}]")
    assert node.update([*resources, *policy("p", "ingress: [{fromEntities: [remote-node]}]")], {7: WEB}).nodes == {}

    done = node.update([*resources, *asking], {7: WEB})
    assert done.nodes == {"172.18.0.3": NODES, "172.18.0.4": NODES + 1}
    assert {entry.identity for entry in done.policies[7].entries} == {1, 6, 7, NODES, NODES + 1}

    only_back = policy("p", "ingress: [{fromNodes: [{matchLabels: {role: back}}]}]")
    changed = [*CLUSTER, *nodes(here="front", there="gone", yonder="back"), *only_back]
    relabelled = node.update(changed, {7: WEB})
    assert relabelled.nodes == done.nodes, "a node keeps its number"
    assert {entry.identity for entry in relabelled.policies[7].entries} == {1, NODES + 1}

    shared = node.update([*resources, *policy("p", "ingress: [{fromEntities: [remote-node]}]")], {7: WEB})
    assert shared.nodes == {}
    assert {NODES, NODES + 1} < {entry.identity for entry in shared.policies[7].entries}, "packets may have them yet"


def test_nodes_have_numbers_of_their_own_while_prefixes_select_them() -> None:
    node = NodePolicies(node_name="here", prefixes_select_nodes=True)
    resources = [*CLUSTER, *nodes(here="front", there="back", yonder="back")]
    inside = policy("p", "ingress: [{fromCIDRSet: [{cidr: 172.18.0.0/24, except: [172.18.0.4/32]}]}]")
    done = node.update([*resources, *inside], {7: WEB})
    assert set(done.nodes) == {"172.18.0.3", "172.18.0.4"}
    said = {entry.identity for entry in done.policies[7].entries}
    assert said == {1, NODES, done.ipcache[ip_network("172.18.0.0/24")]}
    assert node.update([*resources, *policy("p", "ingress: [{fromEntities: [world]}]")], {7: WEB}).nodes == {}


def test_an_agent_that_comes_back_gives_nodes_the_numbers_that_packets_have() -> None:
    node = NodePolicies(node_name="here")
    node.nodes.restore({ip_network("172.18.0.4/32"): NODES, ip_network("10.0.0.0/8"): FIRST})
    asking = policy("p", "ingress: [{fromNodes: [{}]}]")
    done = node.update([*nodes(here="front", there="back", yonder="back"), *CLUSTER, *asking], {7: WEB})
    assert done.nodes == {"172.18.0.3": NODES + 1, "172.18.0.4": NODES}


def test_a_policy_about_nodes_that_are_not_there_is_told() -> None:
    resources = [*CLUSTER, *nodes(here="front")]
    documents = policies_among(host_policy("ingress: [{}]", "{matchLabels: {role: back}}"))
    assert idle_selectors(documents, resources) == ["CiliumClusterwideNetworkPolicy hosts: rule 1 selects no node"]
    assert idle_selectors(policies_among(host_policy("ingress: [{}]")), resources) == []


def test_an_endpoint_whose_labels_are_not_known_is_closed_but_for_rules_about_init() -> None:
    """Also a namespaced policy opens it: nobody knows its namespace."""
    new = {7: Subject(UNKNOWN)}
    closed = NodePolicies().update([*CLUSTER, *policy("p", "ingress: [{fromEntities: [all]}]")], new).policies[7]
    assert (closed.enforced_ingress, closed.enforced_egress) == (True, True)
    assert {entry.identity for entry in closed.entries} == {1}
    text = "{name: p, namespace: default}\nspec: {endpointSelector: {matchLabels: {'reserved:init': ''}}, "
    opening = parse_manifests(
        f"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {text}egress: [{{toEntities: [world]}}]}}\n"
    )
    opened = NodePolicies().update([*CLUSTER, *opening], {**new, 8: WEB}).policies
    assert {entry.identity for entry in opened[7].entries if entry.egress} == {2, 9, 10}
    assert not opened[8].enforced


def everybody(name: str, spec: str) -> list[Resource]:
    return parse_manifests(
        f"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}}}\n"
        f"spec: {{endpointSelector: {{}}, {spec}}}\n"
    )


POOL = (
    everybody("open", "egress: [{toEntities: [all]}]"),
    everybody("port", "ingress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: web, protocol: TCP}]}]}]"),
    everybody("names", "egress: [{toFQDNs: [{matchPattern: '*.example.com'}], toPorts: [{ports: [{port: '443'}]}]}]"),
    everybody("name", "egress: [{toFQDNs: [{matchName: one.example.com}]}]"),
    policy("web", "egress: [{toEndpoints: [{matchLabels: {app: db}}]}, {toFQDNs: [{matchName: b.example}]}]"),
    policy("db", "egressDeny: [{toEndpoints: [{matchLabels: {app: web}}]}]", subject="db"),
)
SELECTORS = ("*.example.com", "one.example.com", "b.example")
SUBJECTS = st.builds(
    Subject,
    st.sampled_from([WEB.identity, DB.identity, INIT, HOST]),
    st.sampled_from([frozenset(), frozenset({("web", 6, 80)}), frozenset({("web", 6, 81), ("other", 6, 9)})]),
)
LEARNED = st.dictionaries(
    st.sampled_from([ip_network(f"192.0.2.{number}") for number in range(4)]),
    st.sets(st.sampled_from(SELECTORS), min_size=1).map(lambda found: tuple(sorted(found))),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sets(st.integers(0, 5), max_size=4), st.lists(LEARNED, max_size=3)), min_size=1, max_size=3),
    st.dictionaries(st.integers(1, 6), SUBJECTS, min_size=1),
)
def test_what_follows_step_by_step_is_what_follows_for_each_endpoint_alone_from_the_beginning(
    steps: list[tuple[set[int], list[dict[Network, tuple[str, ...]]]]], endpoints: dict[int, Subject]
) -> None:
    node = NodePolicies()
    for documents, names in steps:
        resources = [*CLUSTER, *(one for at in sorted(documents) for one in POOL[at])]
        decided = node.update(resources, endpoints)
        for learned in names:
            decided = node.learn(learned)
    for number, subject in endpoints.items():
        alone = NodePolicies(names=node.names, local=deepcopy(node.local))
        again = alone.update(resources, {number: subject})
        assert told(again.policies[number], alone, number) == told(decided.policies[number], node, number)
        assert again.views[number] == decided.views[number]


def told(made: EndpointPolicy, node: NodePolicies, number: int) -> object:
    """A policy, with rules in place of cookies, which are numbered in any order."""
    entries = {entry._replace(cookie=bool(entry.cookie)) for entry in made.entries}
    behind = sorted(str({**one, "revision": 0}) for one in node.rules_behind(number))
    return entries, made.enforced_ingress, made.enforced_egress, behind
