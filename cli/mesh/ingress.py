"""What tables say about Ingresses, Gateways and routes.

In:        one resource.
Out:       a cell's value.
Elsewhere: kinds.py puts cells into columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cli.mesh.view import View
from mesh.resources.base import Condition

if TYPE_CHECKING:
    from mesh.gateway.documents import AnyRoute
    from mesh.ingress.documents import Ingress


def ingress_class(one: Ingress, _view: View) -> str:
    """By the field, or by the annotation that was there before it."""
    return one.spec.ingress_class_name or one.metadata.annotations.get("kubernetes.io/ingress.class", "")


def ingress_hosts(one: Ingress, _view: View) -> str:
    """Hosts of the rules; `*` when they name none."""
    return ",".join(dict.fromkeys(rule.host for rule in one.spec.rules if rule.host)) or "*"


def ingress_addresses(one: Ingress, _view: View) -> str:
    """Where its load balancer is reached."""
    return ",".join(each.ip or each.hostname for each in one.status.load_balancer.ingress)


def ingress_ports(one: Ingress, _view: View) -> str:
    """As kubectl says it: 443 when there is anything about TLS."""
    return "80, 443" if one.spec.tls else "80"


def route_hosts(one: AnyRoute, _view: View) -> str:
    """The list as JSON, as kubectl shows it; nothing when it is empty."""
    return json.dumps(one.spec.hostnames, separators=(",", ":")) if one.spec.hostnames else ""


def condition(conditions: Iterable[Condition], kind: str) -> str:
    """True, False or Unknown."""
    return next((one.status for one in conditions if one.type == kind), "Unknown")
