"""CiliumEnvoyConfigs on one node: what its Envoy gets, and which ports of services are then redirected to it.

In:        the cluster's resources; where this node's Envoy has its files, its records and its ports.
Out:       resources for mesh/envoy/node.py; ports of proxies by service and port, of listeners that listen.
Elsewhere: admission.py leaves out what Envoy refuses, translate.py makes the resources; mesh/services/ gives the
           redirects to the kernel; mesh/main.py calls, so that no redirect is without a listener.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import structlog

from mesh import ipam
from mesh.cluster import Cluster
from mesh.envoy import records
from mesh.envoy.admin import AdminError
from mesh.envoy.node import EnvoyNode
from mesh.envoy.retiring import Extra
from mesh.envoyconfig import messages, validation
from mesh.envoyconfig.admission import Admission
from mesh.envoyconfig.guarding import ACCESS_LOG, discovered, gate_of
from mesh.envoyconfig.listeners import Place
from mesh.envoyconfig.translate import Translation, translate
from mesh.envoyconfig.verdicts import Verdicts
from mesh.resources.base import Key
from mesh.resources.cluster import Node
from mesh.resources.services import Service

log: Final = structlog.get_logger(component="envoyconfig")

_FIELDS: Final = {messages.ROUTES: "routes", messages.ENDPOINTS: "endpoints", messages.SECRET: "secrets"}
_SOURCE: Final = "envoy.config.core.v3.ConfigSource"
_OBSERVED_AT: Final = "egress"
"""Requests are told as those of the client's side: what they meet at the backend is told there."""


class NodeEnvoyConfigs:
    """The CiliumEnvoyConfigs of one node."""

    def __init__(
        self, node: Node, envoy: EnvoyNode, port: Callable[[str, bool], int], accepted: Path | None = None
    ) -> None:
        """`port` says where the listener of a name and a direction (egress?) is.

        accepted  folder of what Envoy has accepted, shared by this machine; None: one of this node's.
        """
        self.waiting = False
        """Whether a listener that services are to go to does not listen yet."""
        self._node = node
        self._envoy = envoy
        self._listening: frozenset[str] = frozenset()
        self._open: dict[tuple[str, str, int], int] = {}
        """Redirects that the kernel was last to have."""
        self._place = Place(
            port=lambda name: port(name, False),
            source=lambda kind, name: messages.new(_SOURCE, **envoy.source(_FIELDS[kind], name)),
            pod_ranges=tuple(ip_network(one) for one in node.spec.pod_cidrs),
            own=tuple(ip_address(one) for one in (*ipam.router_addresses(node), *ipam.ingress_addresses(node))),
            ingress=tuple(ip_address(one) for one in ipam.ingress_addresses(node)),
            gate=gate_of(discovered(envoy), _OBSERVED_AT, envoy.records_folder),
            downstream_logs=_logs(records.downstream_logs(_OBSERVED_AT, envoy.records_folder)),
            upstream_logs=_logs(records.upstream_logs(_OBSERVED_AT, envoy.records_folder)),
        )
        verdicts = Verdicts(accepted or envoy.folder / "accepted")
        ask = partial(validation.complaints_about, say=verdicts.complaint)
        self._admission = Admission(envoy.folder / "accepted.json", node, ask)
        self._translation = Translation()
        self._problems: frozenset[str] = frozenset()

    async def find(self, cluster: Cluster) -> Extra:
        """What the node's Envoy should have; what is wrong is logged once."""
        await self._admission.judge(cluster.resources.values())
        self._translation = translate(self._admission.admitted(cluster.resources.values()), self._node, self._place)
        problems = {f"{key}: {text}" for key, texts in self._translation.problems.items() for text in texts}
        problems |= {f"{key}: {text}" for key, text in self._admission.problems.items()}
        for problem in sorted(problems - self._problems):
            log.warning("an Envoy resource is not in effect", reason=problem)
        self._problems = frozenset(problems)
        found = self._translation.resources
        return Extra(
            listeners=_by_name(found.listeners),
            clusters=_by_name(found.clusters),
            routes=_by_name(found.routes),
            endpoints={one.cluster_name: messages.to_plain(one) for one in found.endpoints},
            secrets=_by_name(found.secrets),
        )

    def remaining(self, cluster: Cluster) -> dict[tuple[str, str, int], int] | None:
        """Redirects that are open and stay, when others are to be closed before their listeners go; else None."""
        wanted = self._redirects(cluster, self._listening)
        kept = {where: port for where, port in self._open.items() if wanted.get(where) == port}
        if kept == self._open:
            return None
        self._open = kept
        return kept

    async def redirects(self, cluster: Cluster) -> dict[tuple[str, str, int], int]:
        """Ports of proxies by namespace, service and port, for those of the found listeners that listen."""
        wanted = self._translation.redirects
        if wanted:
            with suppress(AdminError):
                # An Envoy that does not answer will be back: until then the kernel drops, and nothing passes it by.
                self._listening = await self._envoy.process.admin.listening()
        self.waiting = any(one.listener not in self._listening for one in wanted)
        self._open = self._redirects(cluster, self._listening)
        return dict(self._open)

    def _redirects(self, cluster: Cluster, listening: Set[str]) -> dict[tuple[str, str, int], int]:
        found = {}
        for one in self._translation.redirects:
            service = cluster.resources.get(Key("Service", one.namespace, one.service))
            if one.listener in listening and isinstance(service, Service):
                for port in service.spec.ports:
                    if port.protocol == "TCP" and port.port in (one.ports or (port.port,)):
                        found[one.namespace, one.service, port.port] = one.proxy_port
        return found

    def describe(self) -> dict[str, Any]:
        """For the agent's report."""
        count = len(self._translation.resources.listeners)
        message = f"{count} listeners, {len(self._translation.redirects)} services redirected"
        if self._problems:
            problems = sorted(self._problems)
            more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
            return {"state": "warning", "message": f"{message}; {problems[0]}{more}", "problems": problems}
        return {"state": "ok", "message": message, "problems": []}


def _by_name(found: Sequence[Any]) -> Mapping[str, dict[str, Any]]:
    return {one.name: messages.to_plain(one) for one in found}


def _logs(plain: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    return tuple(messages.new(ACCESS_LOG, **one) for one in plain)
