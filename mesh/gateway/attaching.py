"""Which route belongs to which listener of which Gateway, and under which host names.

In:        Gateways and routes.
Out:       Attachments, and for each parent that a route names whether it has taken the route.
Elsewhere: rules.py says what the rules of a route mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mesh.cluster import Cluster
from mesh.gateway.documents import GROUP, AnyRoute, Gateway, Listener, ParentRef

ROUTE_KINDS: Final = {"HTTP": ("HTTPRoute", "GRPCRoute"), "HTTPS": ("HTTPRoute", "GRPCRoute")}
"""What listeners of a protocol take."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A route at a listener."""

    route: AnyRoute
    listener: Listener
    hosts: tuple[str, ...]
    """Names under which its rules are found; `*` for every name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a Gateway says to a route that names it as a parent."""

    attachments: tuple[Attachment, ...]
    reason: str
    message: str

    @property
    def accepted(self) -> bool:
        return bool(self.attachments)


def parents(route: AnyRoute, gateways: Iterable[Gateway]) -> Iterator[tuple[ParentRef, Gateway]]:
    """Those of `gateways` that the route names."""
    known = {(one.namespace, one.name): one for one in gateways}
    for ref in route.spec.parent_refs:
        gateway = known.get((ref.namespace or route.namespace, ref.name))
        if (ref.group, ref.kind) == (GROUP, "Gateway") and gateway is not None:
            yield ref, gateway


def attach(route: AnyRoute, ref: ParentRef, gateway: Gateway, usable: Sequence[Listener], cluster: Cluster) -> Answer:
    """The route at those of the Gateway's `usable` listeners that the reference is for."""
    meant = [
        one
        for one in usable
        if (not ref.section_name or one.name == ref.section_name) and (ref.port is None or one.port == ref.port)
    ]
    if not meant:
        return Answer((), "NoMatchingParent", f"Gateway {gateway.namespace}/{gateway.name} has no such listener")
    allowed = [one for one in meant if _allows(one, route, gateway, cluster)]
    if not allowed:
        return Answer((), "NotAllowedByListeners", "no listener takes routes of this kind from this namespace")
    found = tuple(
        Attachment(route, one, hosts) for one in allowed if (hosts := common_hosts(one.hostname, route.spec.hostnames))
    )
    if not found:
        return Answer((), "NoMatchingListenerHostname", "no listener has a host name in common with the route")
    return Answer(found, "Accepted", "")


def _allows(listener: Listener, route: AnyRoute, gateway: Gateway, cluster: Cluster) -> bool:
    kinds = tuple(one.kind for one in listener.allowed_routes.kinds) or ROUTE_KINDS.get(listener.protocol, ())
    if route.kind not in kinds or route.kind not in ROUTE_KINDS.get(listener.protocol, ()):
        return False
    namespaces = listener.allowed_routes.namespaces
    if namespaces.from_ == "Selector":
        namespace = cluster.namespace(route.namespace)
        return bool(namespaces.selector and namespace and namespaces.selector.matches(namespace.metadata.labels))
    return namespaces.from_ == "All" or (namespaces.from_ == "Same" and route.namespace == gateway.namespace)


def common_hosts(listener: str, route: Sequence[str]) -> tuple[str, ...]:
    """Names that both have: the narrower of each pair that overlaps; nothing said means every name."""
    if not route:
        return (listener or "*",)
    return tuple(dict.fromkeys(both for one in route if (both := _narrower(listener or "*", one or "*"))))


def _narrower(one: str, other: str) -> str:
    if _covers(one, other):
        return other
    return one if _covers(other, one) else ""


def _covers(wide: str, narrow: str) -> bool:
    return wide in {"*", narrow} or (wide.startswith("*.") and narrow.endswith(wide[1:]))
