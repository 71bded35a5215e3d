"""The tests: policies, scenarios, expectations.

In:        scenarios.py, the policies of ../policies.
Out:       TESTS.
Elsewhere: spec/mesh.md section 9 names them; spec/policy.md says what policies mean.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from connectivity.cluster import OTHER_NAMESPACE, Party, Target
from connectivity.suite import scenarios as who
from connectivity.suite.words import Case, Rule, Test, always
from connectivity.verdicts import (
    AUTH_REQUIRED,
    DEFAULT_DENY,
    EGRESS_DENIED,
    INGRESS_DENIED,
    OK,
    POLICY_DENY,
    Expectation,
    Result,
)
from connectivity.witness import Witness

HTTP_OK: Final = Expectation(http=True)
HTTP_DENIED: Final = Expectation(result=Result.HTTP_DENIED, http=True)
DNS_OK: Final = Expectation(dns=True)
DNS_THEN_DENIED: Final = replace(EGRESS_DENIED, dns=True)
NOT_BALANCED: Final = Expectation(result=Result.NOT_BALANCED, reason=DEFAULT_DENY)
DENIED_BY_RULE: Final = Expectation(result=Result.DROPPED, reason=POLICY_DENY)


def client2_else(denied: Expectation) -> Rule:
    """client2 may, others may not."""
    return lambda client, _: OK if client.has(other="client") else denied


def public_paths(client: Party, target: Target) -> Expectation:
    """echo-ingress-l7: client2 everything that is public; others nothing."""
    if not client.has(other="client"):
        return INGRESS_DENIED
    return HTTP_OK if target.path in ("/", "/public") else HTTP_DENIED


def egress_l7_pods(client: Party, _: Target) -> Expectation:
    """client-egress-l7, to pods: GET / for client2."""
    return HTTP_OK if client.has(other="client") else EGRESS_DENIED


def egress_l7_world(client: Party, target: Target) -> Expectation:
    """client-egress-l7, to the world: plain GET / for client2."""
    if client.has(other="client") and target.scheme == "http":
        return Expectation(http=True, dns=True)
    return DNS_THEN_DENIED


def egress_l7_method(client: Party, target: Target) -> Expectation:
    """client-egress-l7-method: HEAD for client2, whatever the path."""
    if not client.has(other="client"):
        return EGRESS_DENIED
    return HTTP_OK if "--head" in target.options else HTTP_DENIED


def one_server(_: Party, target: Target) -> Expectation:
    """client-egress-tls-sni: one name of a server, whatever its address."""
    return Expectation(result=Result.TLS_DENIED) if target.options else DNS_OK


def one_name(client: Party, target: Target) -> Expectation:
    """to-fqdns: port 80 of one name."""
    return DNS_OK if target.scheme == "http" else DNS_THEN_DENIED


_BASIC: Final = (
    Case(who.pod_to_pod),
    Case(who.pod_to_pod_ipv6),
    Case(who.client_to_client),
    Case(who.pod_to_service),
    Case(who.pod_to_local_nodeport),
    Case(who.pod_to_remote_nodeport),
    Case(who.pod_to_world),
    Case(who.pod_to_cidr),
    Case(who.pod_to_host),
    Case(who.host_to_pod),
)

_REFERENCE: Final = (
    Test("no-policies", _BASIC),
    Test("allow-all", _BASIC, ("allow-all",)),
    Test("client-ingress", (Case(who.client_to_client, client2_else(INGRESS_DENIED)),), ("client-ingress",)),
    Test("echo-ingress", (Case(who.pod_to_pod, client2_else(INGRESS_DENIED)),), ("echo-ingress",)),
    Test(
        "client-egress",
        (Case(who.pod_to_pod), Case(who.client_to_client, always(EGRESS_DENIED))),
        ("client-egress",),
    ),
    Test(
        "to-entities-world",
        (
            Case(
                who.pod_to_world,
                lambda _, target: DNS_OK if target.scheme == "http" else DNS_THEN_DENIED,
            ),
        ),
        ("to-entities-world",),
    ),
    Test(
        "to-cidr-1111",
        (Case(who.pod_to_cidr, lambda _, target: OK if target.host.endswith(".1") else EGRESS_DENIED),),
        ("to-cidr",),
    ),
    Test("echo-ingress-l7", (Case(who.pod_to_pod_with_endpoints, public_paths),), ("echo-ingress-l7",)),
    Test(
        "client-egress-l7",
        (Case(who.pod_to_pod, egress_l7_pods), Case(who.pod_to_world, egress_l7_world)),
        ("client-egress-only-dns", "client-egress-l7-http"),
    ),
    Test(
        "dns-only",
        (Case(who.pod_to_pod, always(EGRESS_DENIED)), Case(who.pod_to_world, always(DNS_THEN_DENIED))),
        ("client-egress-only-dns",),
    ),
    Test("to-fqdns", (Case(who.pod_to_world, one_name),), ("client-egress-to-fqdns",)),
)

_LATER: Final = (
    Test("no-policies-from-outside", (Case(who.outside_to_nodeport),)),
    Test("no-policies-extra", (Case(who.host_to_nodeport),)),
    Test("client-to-itself", (Case(who.pod_to_itself),)),
    Test("client-ingress-knp", (Case(who.client_to_client, client2_else(INGRESS_DENIED)),), ("client-ingress-knp",)),
    Test("echo-ingress-knp", (Case(who.pod_to_pod, client2_else(INGRESS_DENIED)),), ("echo-ingress-knp",)),
    Test(
        "client-egress-knp",
        (Case(who.pod_to_pod), Case(who.client_to_client, always(EGRESS_DENIED))),
        ("client-egress-knp",),
    ),
    Test(
        "client-egress-expression",
        (Case(who.pod_to_pod), Case(who.client_to_client, always(EGRESS_DENIED))),
        ("client-egress-expression",),
    ),
    Test("client-ingress-icmp", (Case(who.client_to_client, client2_else(INGRESS_DENIED)),), ("client-ingress-icmp",)),
    Test("all-ingress-deny", (Case(who.pod_to_pod, always(INGRESS_DENIED)),), ("all-ingress-deny",)),
    Test(
        "all-egress-deny",
        (Case(who.pod_to_pod, always(EGRESS_DENIED)), Case(who.pod_to_cidr, always(EGRESS_DENIED))),
        ("all-egress-deny",),
    ),
    Test(
        "allow-all-except-world",
        (Case(who.pod_to_pod), Case(who.pod_to_host), Case(who.pod_to_cidr, always(EGRESS_DENIED))),
        ("allow-all-except-world",),
    ),
    Test(
        "cluster-entity",
        (Case(who.pod_to_pod), Case(who.pod_to_cidr, always(EGRESS_DENIED))),
        ("cluster-entity",),
    ),
    Test(
        "host-entity-egress",
        (
            Case(who.pod_to_host, lambda client, target: OK if target.node == client.node else EGRESS_DENIED),
            Case(who.pod_to_pod, always(EGRESS_DENIED)),
        ),
        ("host-entity-egress",),
    ),
    Test("client-egress-to-echo-deny", (Case(who.pod_to_pod, always(DENIED_BY_RULE)),), ("echo-deny",)),
    Test(
        "client-egress-to-cidr-deny",
        (Case(who.pod_to_cidr, lambda _, target: DENIED_BY_RULE if target.host.endswith(".1") else OK),),
        ("cidr-deny",),
    ),
    Test(
        "echo-ingress-named-port", (Case(who.pod_to_pod, client2_else(INGRESS_DENIED)),), ("echo-ingress-named-port",)
    ),
    Test(
        "echo-ingress-auth-always-fail",
        (Case(who.pod_to_pod, always(Expectation(result=Result.DROPPED, reason=AUTH_REQUIRED))),),
        ("echo-ingress-auth-always-fail",),
    ),
    Test(
        "echo-ingress-mutual-auth-spiffe",
        (Case(who.pod_to_pod, always(Expectation(authenticated=True))),),
        ("echo-ingress-mutual-auth-spiffe",),
    ),
    Test("l7-lb", (Case(who.pod_to_l7_service, always(HTTP_OK)),), ("l7-lb",)),
    Test(
        "echo-ingress-l7-named-port",
        (Case(who.pod_to_pod_with_endpoints, public_paths),),
        ("echo-ingress-l7-named-port",),
    ),
    # Elsewhere client-egress-l7-named-port; `--test egress-l7` is to find the one test that people know by it.
    Test(
        "client-egress-named-port-l7",
        (Case(who.pod_to_pod, egress_l7_pods), Case(who.pod_to_world, egress_l7_world)),
        ("client-egress-only-dns", "client-egress-l7-http-named-port"),
    ),
    # Elsewhere client-egress-l7-method; see above.
    Test(
        "client-egress-method-l7",
        (Case(who.pod_to_pod_with_methods, egress_l7_method),),
        ("client-egress-only-dns", "client-egress-l7-http-method"),
    ),
    Test("client-egress-tls-sni", (Case(who.pod_to_world_tls, one_server),), ("client-egress-tls-sni",)),
    Test(
        "from-cidr",
        (
            Case(
                who.outside_to_nodeport_by_source,
                lambda client, _: OK if client.ipv4.endswith(".1") else INGRESS_DENIED,
            ),
            Case(who.pod_to_pod, always(INGRESS_DENIED)),
        ),
        ("echo-ingress-from-cidr",),
    ),
    Test(
        "all-entities-deny",
        (Case(who.pod_to_pod, always(DENIED_BY_RULE)), Case(who.pod_to_cidr, always(DENIED_BY_RULE))),
        ("all-entities-deny",),
    ),
    Test(
        "host-entity-ingress",
        (
            Case(who.host_to_pod, lambda client, target: OK if target.node == client.node else INGRESS_DENIED),
            Case(who.pod_to_pod, always(INGRESS_DENIED)),
        ),
        ("host-entity-ingress",),
    ),
    Test(
        "egress-to-specific-namespace",
        (
            Case(
                who.pod_to_other_namespace,
                lambda _, target: OK if target.name.startswith(f"{OTHER_NAMESPACE}/") else EGRESS_DENIED,
            ),
        ),
        ("other-namespace", "egress-to-specific-namespace"),
    ),
    Test(
        "ingress-from-specific-namespace",
        (
            Case(
                who.pod_from_other_namespace,
                lambda client, _: OK if client.name.startswith(f"{OTHER_NAMESPACE}/") else INGRESS_DENIED,
            ),
        ),
        ("other-namespace", "ingress-from-specific-namespace"),
    ),
    Test("pod-to-ingress-service", (Case(who.pod_to_ingress_service, always(HTTP_OK)),), ("ingress",)),
    Test(
        "pod-to-ingress-service-deny-all",
        (Case(who.pod_to_ingress_service, always(NOT_BALANCED)),),
        ("ingress", "all-ingress-deny"),
    ),
    Test(
        "pod-to-ingress-service-deny-ingress-identity",
        (Case(who.pod_to_ingress_service, always(HTTP_DENIED)),),
        ("ingress", "ingress-entity-deny"),
    ),
    Test(
        "pod-to-ingress-service-deny-backend-service",
        (Case(who.pod_to_ingress_service, always(HTTP_DENIED)),),
        ("ingress", "echo-deny"),
    ),
    Test(
        "pod-to-ingress-service-allow-ingress-identity",
        (Case(who.pod_to_ingress_service, always(HTTP_OK)),),
        ("ingress", "all-ingress-deny", "allow-ingress-identity"),
    ),
    Test("outside-to-ingress-service", (Case(who.outside_to_ingress_service, always(HTTP_OK)),), ("ingress",)),
    *(
        Test(
            f"outside-to-ingress-service-{name}",
            (Case(who.outside_to_ingress_service, always(HTTP_DENIED)),),
            ("ingress", manifest),
        )
        for name, manifest in (
            ("deny-world-identity", "ingress-deny-world"),
            ("deny-cidr", "ingress-deny-cidr"),
            ("deny-all-ingress", "ingress-deny-all"),
            ("deny-backend", "ingress-deny-backend"),
        )
    ),
    Test("no-interrupted-connections", checks=(Witness.no_interrupted_connections,)),
    Test(
        "no-interrupted-connections-l7",
        manifests=("echo-ingress-l7",),
        checks=(Witness.no_interrupted_connections,),
    ),
    Test("no-unexpected-packet-drops", checks=(Witness.no_unexpected_packet_drops,)),
    Test("check-log-errors", checks=(Witness.no_errors_in_logs,)),
)

TESTS: Final = (*_REFERENCE, *_LATER)
