"""The kinds of resources: what they are called on the command line and how tables show them.

In:        nothing; a table.
Out:       KINDS, and `find_kinds`, which understands `po`, `pods`, `Pod`, `deploy,svc` and `all`.
Elsewhere: mesh/resources/ has the kinds' fields; get.py prints.

A kind that has no entry here is shown by name and age. To show more of it, add an entry:

    "Ingress": Shown(
        "ingresses", ("ing",), columns=(Column("CLASS", lambda one, view: field(one, "spec", "ingressClassName")), AGE)
    ),

A cell may be anything; None and the empty text become `<none>`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.mesh import cells, ingress
from cli.mesh.naming import prefix_of
from cli.mesh.view import NONE, View, as_labels, listed
from mesh.resources.base import Resource
from mesh.resources.kinds import known_kinds
from service.failure import Failure


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    cell: Callable[[Any, View], object]
    """(resource, view) -> what to show."""
    wide: bool = False
    """Only with `-o wide`."""


AGE: Final = Column("AGE", lambda one, view: view.age(one))


@dataclass(frozen=True, slots=True)
class Shown:
    """How a kind is called and shown. NAME, and NAMESPACE where it is wanted, stand before `columns` by themselves."""

    plural: str
    short: tuple[str, ...] = ()
    columns: tuple[Column, ...] = (AGE,)
    in_all: bool = False
    """`get all` shows it."""
    derive: Callable[[View], list[Resource]] | None = None
    """What there is of it besides what is stored, because it follows from other resources."""
    api_version: str = ""
    """Of kinds that nobody stores; the others are in mesh.resources.kinds.known_kinds()."""
    namespaced: bool = True
    """The same."""


def _derived(name: str) -> Callable[[View], list[Resource]]:
    """A function of derived.py, which is imported when somebody asks for what it finds."""

    def derive(view: View) -> list[Resource]:
        from cli.mesh import derived

        function: Callable[[View], list[Resource]] = getattr(derived, name)
        return function(view)

    return derive


_TEMPLATE: Final = (
    Column("CONTAINERS", lambda one, view: cells.containers(one, "name"), wide=True),
    Column("IMAGES", lambda one, view: cells.containers(one, "image"), wide=True),
)

KINDS: Final[dict[str, Shown]] = {
    "Namespace": Shown("namespaces", ("ns",), (Column("STATUS", lambda one, view: "Active"), AGE)),
    "Node": Shown(
        "nodes",
        ("no",),
        (
            Column("STATUS", cells.node_status),
            Column("ROLES", cells.node_roles),
            AGE,
            Column("VERSION", cells.node_version),
            Column("INTERNAL-IP", lambda one, view: one.ips[0] if one.ips else None, wide=True),
            Column("POD-CIDRS", lambda one, view: ",".join(one.spec.pod_cidrs), wide=True),
        ),
    ),
    "Pod": Shown(
        "pods",
        ("po",),
        (
            Column("READY", cells.pod_ready),
            Column("STATUS", cells.pod_status),
            Column("RESTARTS", lambda one, view: view.restarts.get((one.namespace, one.name), 0)),
            AGE,
            Column("IP", lambda one, view: one.status.pod_ip, wide=True),
            Column("NODE", lambda one, view: one.spec.node_name, wide=True),
            Column("NOMINATED NODE", lambda one, view: None, wide=True),
            Column("READINESS GATES", lambda one, view: None, wide=True),
        ),
        in_all=True,
    ),
    "Service": Shown(
        "services",
        ("svc",),
        (
            Column("TYPE", lambda one, view: one.spec.type),
            Column("CLUSTER-IP", cells.cluster_ip),
            Column("EXTERNAL-IP", cells.external_ip),
            Column("PORT(S)", cells.service_ports),
            AGE,
            Column("SELECTOR", lambda one, view: as_labels(one.spec.selector), wide=True),
        ),
        in_all=True,
    ),
    "Deployment": Shown(
        "deployments",
        ("deploy",),
        (
            Column("READY", lambda one, view: f"{cells.ready_pods(one, view)}/{one.spec.replicas}"),
            Column("UP-TO-DATE", lambda one, view: len(view.pods_of(one))),
            Column("AVAILABLE", cells.ready_pods),
            AGE,
            *_TEMPLATE,
            Column("SELECTOR", lambda one, view: as_labels(one.spec.selector.match_labels), wide=True),
        ),
        in_all=True,
    ),
    "ReplicaSet": Shown(
        "replicasets",
        ("rs",),
        (
            Column("DESIRED", lambda one, view: one.spec["replicas"]),
            Column("CURRENT", lambda one, view: one.status["replicas"]),
            Column("READY", lambda one, view: one.status["readyReplicas"]),
            AGE,
            *_TEMPLATE,
            Column("SELECTOR", lambda one, view: as_labels(one.spec["selector"]["matchLabels"]), wide=True),
        ),
        in_all=True,
        derive=_derived("replica_sets"),
        api_version="apps/v1",
    ),
    "NetworkPolicy": Shown(
        "networkpolicies",
        ("netpol",),
        (Column("POD-SELECTOR", lambda one, view: cells.as_selector(one.spec.pod_selector)), AGE),
    ),
    "CiliumNetworkPolicy": Shown("ciliumnetworkpolicies", ("cnp", "ciliumnp")),
    "CiliumClusterwideNetworkPolicy": Shown("ciliumclusterwidenetworkpolicies", ("ccnp",)),
    "CiliumCIDRGroup": Shown("ciliumcidrgroups", ("ccg",)),
    "CiliumIdentity": Shown(
        "ciliumidentities",
        ("ciliumid",),
        (
            Column("NAMESPACE", lambda one, view: one.security_labels.get("k8s:io.kubernetes.pod.namespace")),
            AGE,
            Column("LABELS", lambda one, view: as_labels(one.security_labels), wide=True),
        ),
    ),
    "CiliumEndpoint": Shown(
        "ciliumendpoints",
        ("cep", "ciliumep"),
        (
            Column("ENDPOINT ID", lambda one, view: one.status["id"]),
            Column("IDENTITY ID", lambda one, view: one.status["identity"]["id"]),
            Column("ENDPOINT STATE", lambda one, view: one.status["state"]),
            Column("IPV4", lambda one, view: one.status["networking"]["addressing"][0].get("ipv4")),
            Column("IPV6", lambda one, view: one.status["networking"]["addressing"][0].get("ipv6")),
        ),
        derive=_derived("endpoints"),
        api_version="cilium.io/v2",
    ),
    "Ingress": Shown(
        "ingresses",
        ("ing",),
        (
            Column("CLASS", ingress.ingress_class),
            Column("HOSTS", ingress.ingress_hosts),
            Column("ADDRESS", ingress.ingress_addresses),
            Column("PORTS", ingress.ingress_ports),
            AGE,
        ),
    ),
    "IngressClass": Shown(
        "ingressclasses",
        (),
        (
            Column("CONTROLLER", lambda one, view: one.spec.controller),
            Column("PARAMETERS", lambda one, view: None),
            AGE,
        ),
    ),
    "Secret": Shown(
        "secrets",
        (),
        (Column("TYPE", lambda one, view: one.type), Column("DATA", lambda one, view: len(one.keys)), AGE),
    ),
    "GatewayClass": Shown(
        "gatewayclasses",
        ("gc",),
        (
            Column("CONTROLLER", lambda one, view: one.spec.controller_name),
            Column("ACCEPTED", lambda one, view: ingress.condition(one.status.conditions, "Accepted")),
            AGE,
        ),
    ),
    "Gateway": Shown(
        "gateways",
        ("gtw",),
        (
            Column("CLASS", lambda one, view: one.spec.gateway_class_name),
            Column("ADDRESS", lambda one, view: ",".join(each.value for each in one.status.addresses)),
            Column("PROGRAMMED", lambda one, view: ingress.condition(one.status.conditions, "Programmed")),
            AGE,
        ),
    ),
    "HTTPRoute": Shown("httproutes", (), (Column("HOSTNAMES", ingress.route_hosts), AGE)),
    "GRPCRoute": Shown("grpcroutes", (), (Column("HOSTNAMES", ingress.route_hosts), AGE)),
    "ReferenceGrant": Shown("referencegrants", ("refgrant",)),
    "EndpointSlice": Shown(
        "endpointslices",
        ("eps",),
        (
            Column("ADDRESSTYPE", lambda one, view: one.address_type),
            Column("PORTS", lambda one, view: listed([port.port for port in one.ports if port.port])),
            Column("ENDPOINTS", lambda one, view: listed([each for part in one.endpoints for each in part.addresses])),
            AGE,
        ),
    ),
    "Endpoints": Shown(
        "endpoints", ("ep",), (Column("ENDPOINTS", cells.endpoint_addresses), AGE), derive=_derived("service_endpoints")
    ),
    # Kinds whose columns say no more than their age, but which have names of their own.
    "ConfigMap": Shown("configmaps", ("cm",)),
    "CiliumEnvoyConfig": Shown("ciliumenvoyconfigs", ("cec",)),
    "CiliumClusterwideEnvoyConfig": Shown("ciliumclusterwideenvoyconfigs", ("ccec",)),
    "CiliumLoadBalancerIPPool": Shown(
        "ciliumloadbalancerippools",
        ("ippools", "ippool", "lbippool", "lbippools"),
        (
            Column("DISABLED", lambda one, view: str(one.spec.disabled).lower()),
            Column("CONFLICTING", cells.pool_conflict),
            AGE,
        ),
    ),
    "CiliumL2AnnouncementPolicy": Shown("ciliuml2announcementpolicies", ("l2announcement",)),
    "CertificateSigningRequest": Shown(
        "certificatesigningrequests",
        ("csr",),
        (
            AGE,
            Column("SIGNERNAME", lambda one, view: one.spec.signer_name),
            Column("REQUESTOR", lambda one, view: one.spec.username),
            Column("REQUESTEDDURATION", cells.wanted_duration),
            Column("CONDITION", cells.signing_condition),
        ),
    ),
    "ClusterTrustBundle": Shown(
        "clustertrustbundles", (), (Column("SIGNERNAME", lambda one, view: one.spec.signer_name), AGE)
    ),
}


@dataclass(frozen=True, slots=True)
class KnownKind:
    """A kind as the command line deals with it."""

    kind: str
    api_version: str
    namespaced: bool
    shown: Shown

    @property
    def prefix(self) -> str:
        """`deployment.apps`: what stands before the name of a resource where kinds are mixed."""
        return prefix_of(self.kind, self.api_version)

    @property
    def words(self) -> tuple[str, ...]:
        """What people may call it, in lower case."""
        group = self.prefix.partition(".")[2]
        names = (self.shown.plural, self.kind.lower(), *self.shown.short)
        return (*names, f"{self.shown.plural}.{group}") if group else names


def kinds() -> dict[str, KnownKind]:
    """All kinds that there can be resources of, by name."""
    found = {
        name: KnownKind(name, one.api_versions[0], one.namespaced, KINDS.get(name) or Shown(plural_of(name)))
        for name, one in known_kinds().items()
    }
    for name, shown in KINDS.items():
        if shown.derive is not None and name not in found:
            found[name] = KnownKind(name, shown.api_version, shown.namespaced, shown)
    return found


def plural_of(kind: str) -> str:
    """`Gateway` -> `gateways`, `Policy` -> `policies`, `Class` -> `classes`."""
    word = kind.lower()
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def find_kinds(words: str) -> list[KnownKind]:
    """The kinds that `svc,pods` means, in that order. Raises: Failure with the names that come near."""
    known = kinds()
    by_word = {word: one for one in known.values() for word in one.words}
    found: list[KnownKind] = []
    for word in words.lower().split(","):
        if word == "all":
            # The order in which kubectl has them, which is that of the table.
            found += [known[name] for name, shown in KINDS.items() if shown.in_all and name in known]
        elif word in by_word:
            found.append(by_word[word])
        else:
            near = difflib.get_close_matches(word, list(by_word), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see `flowscope mesh api-resources`"
            raise Failure(f"there is no kind of resource called {word[:80]!r}; {hint}")
    return list(dict.fromkeys(found))


def targets_of(words: Sequence[str]) -> list[tuple[KnownKind, str | None]]:
    """What `pods a b`, `pod/a svc/b` or `pods,svc` mean: kinds with names, or with None for any. Raises: Failure."""
    if not words:
        raise Failure("name a kind of resource, as in `flowscope mesh get pods`; see `flowscope mesh api-resources`")
    if "/" in words[0]:
        found: list[tuple[KnownKind, str | None]] = []
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not name:
                raise Failure(f"{word[:80]!r}: write KIND/NAME for each resource, or KIND NAME...")
            found += [(one, name) for one in find_kinds(kind)]
        return found
    if wrong := [word for word in words[1:] if "/" in word]:
        raise Failure(f"{wrong[0][:80]!r}: write KIND/NAME for each resource, or KIND NAME...")
    return [(kind, name) for kind in find_kinds(words[0]) for name in (words[1:] or (None,))]


def rows_of(
    shown: Shown, resources: Sequence[Resource], view: View, *, wide: bool, namespaces: bool, labels: bool, prefix: str
) -> list[list[str]]:
    """A table with headings. `prefix` stands before names, when kinds are mixed."""
    columns = [one for one in shown.columns if wide or not one.wide]
    head = [*(["NAMESPACE"] if namespaces else []), "NAME", *(one.title for one in columns)]
    rows = [[*head, "LABELS"] if labels else head]
    for one in resources:
        row = [one.namespace] if namespaces else []
        row += [prefix + one.name, *(_text(column.cell(one, view)) for column in columns)]
        rows.append([*row, as_labels(one.metadata.labels)] if labels else row)
    return rows


def _text(cell: object) -> str:
    return NONE if cell is None or cell == "" else str(cell)
