"""Clusters of a CiliumEnvoyConfig, and the endpoints of services under the names that clusters use.

In:        Cluster messages with full names; services and pods.
Out:       completed clusters; ClusterLoadAssignment messages.
Elsewhere: mesh/backends.py says which pods stand behind a service.

Source: spec/mesh.md section 2, "EDS naming" and "What the agent changes in the resources".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.backends import Directory
from mesh.envoyconfig import messages
from mesh.envoyconfig.listeners import MARK_UPSTREAM, Place, mark_option
from mesh.ipam import is_ipv4
from mesh.resources.base import Resource
from mesh.resources.services import Service, ServicePort

PLENTY: Final = 1 << 20
"""Limits of circuit breakers that nobody has set; Envoy's own (1024) are low for a proxy that a whole node shares."""

_EDS: Final = 3
_SOL_IP, _IP_TRANSPARENT = 0, 19
_SOL_IPV6, _IPV6_TRANSPARENT = 41, 75

_SERVICE: Final = re.compile(r"(?P<namespace>[^/:]+)[/:](?P<name>[^/:]+)(:(?P<port>[^/:]+))?")


@dataclass(frozen=True, slots=True)
class ServiceName:
    """What an EDS name stands for."""

    namespace: str
    name: str
    port: str = ""
    """Number or name of a port of the service; empty: all."""

    @classmethod
    def parse(cls, text: str) -> ServiceName | None:
        """From `ns/service`, `ns/service:port` or `ns:service:port`; None for other names."""
        match = _SERVICE.fullmatch(text)
        return cls(match["namespace"], match["name"], match["port"] or "") if match else None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" + (f":{self.port}" if self.port else "")


def complete(cluster: Any, written_name: str, place: Place) -> None:
    """Fill in what users leave out.

    written_name  how the cluster was called before it got its full name; it may be that of a service.
    """
    if cluster.type == _EDS and cluster.WhichOneof("cluster_discovery_type") == "type":
        eds = cluster.eds_cluster_config
        if not eds.service_name:
            service = ServiceName.parse(written_name)
            eds.service_name = str(service) if service else cluster.name
        if not eds.HasField("eds_config"):
            eds.eds_config.CopyFrom(place.source(messages.ENDPOINTS, eds.service_name))
    if not cluster.HasField("circuit_breakers"):
        limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), PLENTY)
        cluster.circuit_breakers.CopyFrom(messages.new("envoy.config.cluster.v3.CircuitBreakers", thresholds=[limits]))
    if messages.HTTP_OPTIONS not in cluster.typed_extension_protocol_options and not _old_http_options(cluster):
        options = messages.new(messages.HTTP_OPTIONS, use_downstream_protocol_config={"http2_protocol_options": {}})
        cluster.typed_extension_protocol_options[messages.HTTP_OPTIONS].Pack(options)
    if not cluster.HasField("upstream_bind_config") and place.ingress:
        cluster.upstream_bind_config.CopyFrom(_bind(place))


def _old_http_options(cluster: Any) -> bool:
    return any(
        cluster.HasField(one)
        for one in ("http_protocol_options", "http2_protocol_options", "common_http_protocol_options")
    )


def _bind(place: Place) -> Any:
    """As the node's ingress address; a filter for pods of this node overrides the address."""
    first, *more = [
        {
            "address": {"address": str(one), "port_value": 0},
            "socket_options": [
                mark_option(MARK_UPSTREAM),
                _transparent(_SOL_IP, _IP_TRANSPARENT)
                if one.version == 4
                else _transparent(_SOL_IPV6, _IPV6_TRANSPARENT),
            ],
        }
        for one in place.ingress
    ]
    return messages.new(
        "envoy.config.core.v3.BindConfig",
        source_address=first["address"],
        socket_options=first["socket_options"],
        extra_source_addresses=[
            {"address": one["address"], "socket_options": {"socket_options": one["socket_options"]}} for one in more
        ],
    )


def _transparent(level: int, name: int) -> dict[str, Any]:
    return {"description": "transparent", "level": level, "name": name, "int_value": 1, "state": "STATE_PREBIND"}


class Endpoints:
    """Backends of services, looked up by EDS name."""

    def __init__(self, services: Iterable[Service], behind: Iterable[Resource]) -> None:
        """`behind`: pods, EndpointSlices and Endpoints; others are passed over."""
        self._services: Mapping[tuple[str, str], Service] = {(one.namespace, one.name): one for one in services}
        self._directory = Directory(behind)

    def assignment(self, name: str) -> Any:
        """The ClusterLoadAssignment called `name`; without endpoints when there is no such service."""
        found = messages.new(messages.ENDPOINTS, cluster_name=name)
        service_name = ServiceName.parse(name)
        if service_name is None:
            return found
        targets = self._targets(service_name)
        if targets:
            locality = found.endpoints.add()
            for address, port, other in targets:
                endpoint = locality.lb_endpoints.add().endpoint
                sockets = [endpoint.address.socket_address]
                if other:
                    # In a pod's name a connection has the pod's family. Envoy tries the next address when the first one
                    # is of another.
                    sockets.append(endpoint.additional_addresses.add().address.socket_address)
                for socket, one in zip(sockets, (address, other), strict=False):
                    socket.address, socket.port_value = one, port
        return found

    def _targets(self, name: ServiceName) -> list[tuple[str, int, str]]:
        """Addresses and ports; with the address in the other family, where the service is reached by both."""
        service = self._services.get((name.namespace, name.name))
        if service is None:
            return []
        both = len(service.families) > 1
        found = {
            (backend.address, target, backend.other if both else "")
            for backend in self._directory.open(service)
            for port, target in backend.ports
            if port.protocol == "TCP" and _is(port, name.port)
        }
        # One family only, so that each pod is one endpoint.
        first = [one for one in found if is_ipv4(one[0])] or list(found)
        return sorted(first)


def _is(port: ServicePort, wanted: str) -> bool:
    return not wanted or wanted == port.name or wanted == str(port.port)
