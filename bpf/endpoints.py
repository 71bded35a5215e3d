"""Endpoints in the kernel: which address is whose, which device is whose, which program judges what reaches it.

In:        endpoints and the index of their device; addresses of the node itself.
Out:       entries of the endpoint, interface and program maps, written in an order without a gap in traffic.
Elsewhere: encoding.py knows the entries; policies.py what may pass; datapath.py puts programs on the devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np

from bpf import maps
from bpf.devices import NodeNamespace
from bpf.encoding import addresses_of, endpoint_info, endpoint_key, interface_info, record
from bpf.facts import Address, Endpoint
from bpf.handles import Map, Program


class EndpointMaps:
    """Who lives on one node."""

    def __init__(self, tables: Mapping[str, Map]) -> None:
        self._endpoints = tables[maps.ENDPOINTS]
        self._interfaces = tables[maps.INTERFACES]
        self._ingress = tables[maps.CALL_POLICY]
        self._egress = tables[maps.EGRESSCALL_POLICY]

    def add(self, endpoint: Endpoint, ifindex: int, *, ingress: Program, egress: Program) -> None:
        """Make an endpoint known, or change it; `ingress` and `egress` judge what reaches and what leaves it."""
        self._forget(endpoint.endpoint_id, keep_ifindex=ifindex, keep_addresses=addresses_of(endpoint))
        # The program stands in the array before any packet can look for it.
        self._interfaces.update(ifindex.to_bytes(4, "little"), interface_info(endpoint))
        self._ingress.set_fd(endpoint.endpoint_id, ingress.fd)
        self._egress.set_fd(endpoint.endpoint_id, egress.fd)
        for address in addresses_of(endpoint):
            self._endpoints.update(endpoint_key(address), endpoint_info(endpoint, ifindex))

    def remove(self, endpoint_id: int) -> None:
        """Forget an endpoint; unknown ids are fine."""
        self._forget(endpoint_id)
        for programs in (self._ingress, self._egress):
            programs.delete(endpoint_id.to_bytes(4, "little"))

    def read(self, namespace: NodeNamespace) -> dict[int, Endpoint]:
        """Endpoints by id; ifname is "" when the device is gone."""
        found = {}
        for ifindex, info in self._devices():
            ipv4, ipv6 = info["ip4"].tobytes(), info["ip6"].tobytes()
            found[int(info["endpoint_id"])] = Endpoint(
                endpoint_id=int(info["endpoint_id"]),
                identity=int(info["identity"]),
                ifname=namespace.ifname(ifindex) or "",
                pod_mac=maps.mac_text(info["mac"]),
                host_mac=maps.mac_text(info["host_mac"]),
                ipv4=IPv4Address(ipv4) if any(ipv4) else None,
                ipv6=IPv6Address(ipv6) if any(ipv6) else None,
            )
        return found

    def set_host_addresses(self, addresses: Iterable[Address]) -> None:
        """All addresses of the node itself; replaces the earlier set."""
        wanted = {endpoint_key(address) for address in addresses}
        for key, value in self._endpoints.items():
            if record(value, maps.ENDPOINT_INFO)["flags"] & maps.ENDPOINT_HOST and key not in wanted:
                self._endpoints.delete(key)
        info = np.zeros(1, maps.ENDPOINT_INFO)
        info["flags"] = maps.ENDPOINT_HOST
        info["identity"] = 1
        for key in wanted:
            self._endpoints.update(key, info.tobytes())

    def _devices(self) -> list[tuple[int, Any]]:
        entries = self._interfaces.items()
        return [(int.from_bytes(key, "little"), record(value, maps.INTERFACE_INFO)) for key, value in entries]

    def _forget(
        self, endpoint_id: int, keep_ifindex: int | None = None, keep_addresses: Iterable[Address] = ()
    ) -> None:
        """Remove what the maps have of an endpoint, but not what is about to be written again: no gap in traffic."""
        keep = {endpoint_key(address) for address in keep_addresses}
        for key, value in self._endpoints.items():
            info = record(value, maps.ENDPOINT_INFO)
            if info["endpoint_id"] == endpoint_id and not info["flags"] & maps.ENDPOINT_HOST and key not in keep:
                self._endpoints.delete(key)
        for ifindex, info in self._devices():
            if info["endpoint_id"] == endpoint_id and ifindex != keep_ifindex:
                self._interfaces.delete(ifindex.to_bytes(4, "little"))
