"""A node's endpoints: what the kernel and proxies have to know of pods and of everybody's addresses.

In:        pods; the ipcache of state.json; what policies decided.
Out:       ids, endpoints and ipcache entries for the kernel; a view for Envoy.
Elsewhere: main.py gives them to those that need them; knowledge.py makes state.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from bpf.datapath import Endpoint, IpcacheEntry, Prefix
from mesh import identities, ipam, knowledge
from mesh.envoy.matching import NodeView
from mesh.policy.judging import Whole
from mesh.policy.outcome import Outcome
from mesh.resources.pods import Pod

MAX_ENDPOINT_ID: Final = 65535


def endpoint_ids(pods: Iterable[Pod]) -> dict[str, int]:
    """Ids by the pods' uids. They follow from the uid, so a restarted agent finds the same; clashes move up by one."""
    ids: dict[str, int] = {}
    taken = {knowledge.HOST_ENDPOINT_ID}
    for uid in sorted(pod.metadata.uid for pod in pods):
        number = int.from_bytes(sha256(uid.encode()).digest()[:2], "big") or MAX_ENDPOINT_ID
        while number in taken:
            number = number % MAX_ENDPOINT_ID + 1
        taken.add(number)
        ids[uid] = number
    return ids


def ipcache_entries(state: Iterable[Mapping[str, Any]], own: Iterable[str]) -> dict[Prefix, IpcacheEntry]:
    """The kernel's form of the ipcache of state.json. What lives on another node is reached through a tunnel.

    The world is left out: a miss already means world.
    """
    here = set(own)
    entries: dict[Prefix, IpcacheEntry] = {}
    for one in state:
        if one["identity"] == identities.WORLD:
            continue
        host = one.get("host_ip")
        tunnel = ip_address(host) if host and host not in here else None
        entries[ipam.network_of(one["prefix"])] = IpcacheEntry(identity=one["identity"], tunnel_endpoint=tunnel)
    return entries


def node_view(ipcache: Iterable[Mapping[str, Any]], endpoints: Mapping[int, Endpoint], decided: Outcome) -> NodeView:
    """What proxies have to know, from the ipcache of state.json and the policies of endpoints."""
    return NodeView(
        {
            address: view
            for number, view in decided.views.items()
            # What the node itself says, no Envoy judges.
            if number in endpoints
            for address in (endpoints[number].ipv4, endpoints[number].ipv6)
            if address is not None and view
        },
        {ipam.network_of(one["prefix"]): one["identity"] for one in ipcache},
        decided.ingress,
        {
            address: Whole(policy, decided.views[number])
            for number, policy in decided.policies.items()
            if number in endpoints
            for address in (endpoints[number].ipv4, endpoints[number].ipv6)
            if address is not None and policy.enforced_egress
        },
    )


def endpoint_of(pod: Pod, number: int, identity: int) -> Endpoint:
    """A pod as the kernel has to know it. It has its wires."""
    network = pod.status.network
    assert network is not None
    addresses = [ip_address(address) for address in pod.ips]
    return Endpoint(
        endpoint_id=number,
        identity=identity,
        ifname=network.interface,
        pod_mac=network.mac,
        host_mac=network.host_mac,
        ipv4=next((one for one in addresses if isinstance(one, IPv4Address)), None),
        ipv6=next((one for one in addresses if isinstance(one, IPv6Address)), None),
    )
