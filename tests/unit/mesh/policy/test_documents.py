"""Policies as users write them: what is taken, and what is said about what is not."""

from __future__ import annotations

import pytest

from mesh.policy.documents.cilium import CiliumNetworkPolicy
from mesh.policy.documents.kubernetes import NetworkPolicy
from mesh.resources.manifests import parse_manifest, parse_manifests
from mesh.resources.mistakes import InvalidResource

HEAD = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec:\n  "

REFERENCE = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: client-egress-l7-http
  namespace: cilium-test
spec:
  description: "Allow GET one.one.one.one:80/ and GET <echo>:8080/ from client2"
  endpointSelector:
    matchLabels:
      other: client
  egress:
  - toEndpoints:
    - matchLabels:
        kind: echo
    toPorts:
    - ports:
      - port: "8080"
        protocol: TCP
      rules:
        http:
        - method: "GET"
          path: "/$"
  - toFQDNs:
    - matchName: "one.one.one.one"
    toPorts:
    - ports:
      - port: "80"
        protocol: TCP
      rules:
        http:
        - method: "GET"
          path: "/"
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: client-egress-only-dns
  namespace: cilium-test
spec:
  endpointSelector:
    matchLabels:
      kind: client
  egress:
  - toEndpoints:
    - matchExpressions:
      - {key: 'k8s:io.kubernetes.pod.namespace', operator: In, values: [kube-system]}
      - {key: 'k8s:k8s-app', operator: In, values: [kube-dns]}
    toPorts:
    - ports:
      - {port: "53", protocol: UDP}
      rules:
        dns:
        - matchPattern: "*"
"""


def test_the_reference_s_policies_are_taken_and_survive_the_store() -> None:
    for policy in parse_manifests(REFERENCE):
        assert isinstance(policy, CiliumNetworkPolicy)
        assert parse_manifest(policy.dump()) == policy


def test_kubernetes_own_kind_survives_the_store() -> None:
    text = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: a}}
      podSelector: {matchLabels: {role: client}}
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
    ports: [{port: 8000, endPort: 8010}, {port: http}]
"""
    [policy] = parse_manifests(text)
    assert isinstance(policy, NetworkPolicy)
    assert parse_manifest(policy.dump()) == policy


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("endpointSelector: {}", "spec: needs an entry in ingress, ingressDeny, egress or egressDeny"),
        ("{endpointSelector: {}, ingress: []}", "spec: needs an entry in ingress"),
        ("ingress: [{}]", "spec: endpointSelector: missing"),
        ("{nodeSelector: {}, ingress: [{}]}", "nodeSelector: nodes are in no namespace; write a CiliumClusterwide"),
        ("{nodeSelector: {}, endpointSelector: {}, ingress: [{}]}", "spec: endpointSelector and nodeSelector in one"),
        (
            "{endpointSelector: {}, ingress: [{fromNodes: [{}], fromEntities: [host]}]}",
            "spec.ingress[0]: fromNodes and fromEntities in one element",
        ),
        (
            "{endpointSelector: {}, ingress: [{fromGroups: [{aws: {}}]}]}",
            "spec.ingress[0]: fromGroups: no cloud provider is here to say which addresses belong to the group; "
            "write them as fromCIDRSet, or as a CiliumCIDRGroup that fromCIDRSet names by cidrGroupRef",
        ),
        (
            "{endpointSelector: {}, egressDeny: [{}, {toGroups: []}]}",
            "spec.egressDeny[1]: toGroups: no cloud provider is here",
        ),
        (
            "{nodeSelector: {}, ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]}",
            "spec: ingress[0].toPorts[0].rules: for nodes, dns rules for egress only",
        ),
        (
            "{nodeSelector: {}, egress: [{toPorts: [{ports: [{port: '443', protocol: TCP}], serverNames: [a.b]}]}]}",
            "spec: egress[0].toPorts[0].serverNames: not for nodes",
        ),
        (
            "{endpointSelector: {}, ingress: [{fromEndpoint: [{}]}]}",
            "spec.ingress[0]: unknown field 'fromEndpoint'",
        ),
        (
            "{endpointSelector: {}, egress: [{toEndpoints: [{}], toCIDR: [1.1.1.1]}]}",
            "spec.egress[0]: toEndpoints and toCIDR in one element",
        ),
        (
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '70000', protocol: TCP}]}]}]}",
            "spec.ingress[0].toPorts[0].ports[0]: port: must be 0 to 65535, got 70000",
        ),
        (
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '90', endPort: 80, protocol: TCP}]}]}]}",
            "spec.ingress[0].toPorts[0].ports[0]: endPort: must not be below port 90, got 80",
        ),
        (
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: web, endPort: 80}]}]}]}",
            "endPort: needs a numeric port",
        ),
        (
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '80', protocol: QUIC}]}]}]}",
            "spec.ingress[0].toPorts[0].ports[0].protocol: must be",
        ),
        (
            "{endpointSelector: {}, ingress: [{fromCIDR: [10.0.0.0/33]}]}",
            "spec.ingress[0].fromCIDR[0]: must be a CIDR like 10.0.0.0/8, got '10.0.0.0/33'",
        ),
        (
            "{endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]}]}",
            "spec.egress[0].toCIDRSet[0]: except[0]: 11.0.0.0/16 is not inside 10.0.0.0/8",
        ),
        (
            "{endpointSelector: {}, egress: [{toEntities: [wrold]}]}",
            "spec.egress[0].toEntities[0]: must be 'all'",
        ),
        (
            "{endpointSelector: {}, egress: [{icmps: [{fields: [{type: Ping}]}]}]}",
            "spec.egress[0].icmps[0].fields[0]: type: must be 0 to 255 or a name like EchoRequest, got 'Ping'",
        ),
        (
            "{endpointSelector: {}, egressDeny: [{}, {toServices: [{k8sService: {serviceName: kubernetes}}]}]}",
            "egressDeny[1].toServices: default/kubernetes cannot be selected as a service;"
            " write toEntities: [kube-apiserver]",
        ),
        (
            "{endpointSelector: {}, egressDeny: [{toFQDNs: [{matchName: a.b}]}]}",
            "spec.egressDeny[0]: unknown field 'toFQDNs'",
        ),
        (
            "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '80'}], rules: {http: [{}]}}]}]}",
            "spec.egress[0].toPorts[0]: ports[0].protocol: http rules need TCP written out",
        ),
        (
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '53', protocol: UDP}], "
            "rules: {dns: [{matchName: a}]}}]}]}",
            "spec.ingress[0]: toPorts[0].rules: dns rules are for egress",
        ),
        (
            "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], "
            "rules: {http: [{headerMatches: [{name: X-Token, secret: {name: s}}]}]}}]}]}",
            "rules.http[0].headerMatches[0]: secret: values in secrets are not read",
        ),
        (
            "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '443', protocol: TCP}], "
            "serverNames: [a.b], rules: {http: [{}]}}]}]}",
            "spec.egress[0].toPorts[0]: serverNames: not together with rules",
        ),
        (
            "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], "
            "rules: {http: [{path: '('}]}}]}]}",
            "rules.http[0].path: must be a regular expression",
        ),
        (
            "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], "
            "rules: {http: [{path: '(?=not in RE2)'}]}}]}]}",
            "rules.http[0].path: must be a regular expression as RE2 reads it: invalid perl operator: (?=",
        ),
        (
            "{endpointSelector: {}, egress: [{}, {toPorts: [{ports: [{port: '9092', protocol: TCP}], "
            "rules: {kafka: [{topic: orders}]}}]}]}",
            "spec.egress[1].toPorts[0].rules: kafka: Kafka rules are deprecated in Cilium, and no proxy here reads "
            "Kafka, so the port would be closed; allow it without rules",
        ),
        (
            "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], "
            "rules: {l7proto: r2d2, l7: [{cmd: READ}]}}]}]}",
            "spec.egress[0].toPorts[0].rules: l7proto: no proxy here reads other protocols than HTTP and DNS",
        ),
        (
            "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], "
            "listener: {envoyConfig: {kind: CiliumEnvoyConfig, name: a}, name: b}}]}]}",
            "spec.egress[0].toPorts[0]: listener: policies send nothing to listeners of CiliumEnvoyConfigs here",
        ),
        (
            "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '443', protocol: TCP}], "
            "terminatingTLS: {secret: {name: s}}}]}]}",
            "spec.egress[0].toPorts[0]: terminatingTLS: no proxy here opens TLS for a policy; serverNames",
        ),
        (
            "{endpointSelector: {matchExpressions: [{key: app, operator: In}]}, ingress: [{}]}",
            "spec.endpointSelector.matchExpressions[0]: values: In needs some",
        ),
        ("{endpointSelector: {}, ingress: [{}], log: {value: '" + "x" * 33 + "'}}", "spec.log.value: "),
    ],
)
def test_what_cannot_work_is_refused_with_the_path_of_the_field(spec: str, complaint: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        parse_manifests(HEAD + spec + "\n", "policy.yaml")
    assert str(refused.value).startswith("policy.yaml: document 1 (CiliumNetworkPolicy p): ")
    assert complaint in str(refused.value)


def test_more_than_forty_ports_in_one_element_are_refused() -> None:
    ports = ", ".join(f"{{port: '{number}', protocol: TCP}}" for number in range(1, 42))
    with pytest.raises(InvalidResource, match=r"spec\.ingress\[0\]\.toPorts\[0\]\.ports"):
        parse_manifests(HEAD + f"{{endpointSelector: {{}}, ingress: [{{toPorts: [{{ports: [{ports}]}}]}}]}}\n")


def test_a_wrong_document_among_several_is_named() -> None:
    with pytest.raises(InvalidResource, match=r"two\.yaml: document 2 "):
        parse_manifests(HEAD + "{endpointSelector: {}, ingress: [{}]}\n---\n" + HEAD + "{}\n", "two.yaml")
