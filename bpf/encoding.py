"""Entries of the endpoint, address and announcement maps as bytes.

In:        values of facts.py.
Out:       keys and values as the programs read them, and back.
Elsewhere: maps.py knows the layouts; datapath.py writes.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import numpy as np

from bpf import maps
from bpf.facts import Address, Endpoint, IpcacheEntry, Prefix


def record(raw: bytes, dtype: np.dtype[np.void]) -> Any:
    """One record, as numpy shows it."""
    return np.frombuffer(raw, dtype)[0]


def addresses_of(endpoint: Endpoint) -> list[Address]:
    return [address for address in (endpoint.ipv4, endpoint.ipv6) if address is not None]


def endpoint_key(address: Address) -> bytes:
    key = np.zeros(1, maps.ENDPOINT_KEY)
    key["ip"] = maps.address_bytes(address)
    key["family"] = maps.family_of(address)
    return key.tobytes()


def endpoint_info(endpoint: Endpoint, ifindex: int) -> bytes:
    info = np.zeros(1, maps.ENDPOINT_INFO)
    info["ifindex"] = ifindex
    info["endpoint_id"] = endpoint.endpoint_id
    info["identity"] = endpoint.identity
    info["mac"][0, :6] = np.frombuffer(maps.mac_bytes(endpoint.pod_mac), np.uint8)
    info["host_mac"][0, :6] = np.frombuffer(maps.mac_bytes(endpoint.host_mac), np.uint8)
    return info.tobytes()


def interface_info(endpoint: Endpoint) -> bytes:
    info = np.zeros(1, maps.INTERFACE_INFO)
    info["endpoint_id"] = endpoint.endpoint_id
    info["identity"] = endpoint.identity
    if endpoint.ipv4 is not None:
        info["ip4"] = np.frombuffer(endpoint.ipv4.packed, np.uint8)
    if endpoint.ipv6 is not None:
        info["ip6"] = np.frombuffer(endpoint.ipv6.packed, np.uint8)
    info["mac"] = np.frombuffer(maps.mac_bytes(endpoint.pod_mac), np.uint8)
    info["host_mac"] = np.frombuffer(maps.mac_bytes(endpoint.host_mac), np.uint8)
    return info.tobytes()


def announcement(address: Address, ifindex: int, mac: str) -> tuple[bytes, bytes]:
    key, value = np.zeros(1, maps.ANNOUNCE_KEY), np.zeros(1, maps.ANNOUNCE_VALUE)
    key["address"] = maps.address_bytes(address)
    key["ifindex"], key["family"] = ifindex, maps.family_of(address)
    value["mac"] = np.frombuffer(maps.mac_bytes(mac), np.uint8)
    return key.tobytes(), value.tobytes()


def ipcache_key(prefix: Prefix) -> bytes:
    key = np.zeros(1, maps.IPCACHE_KEY)
    key["prefix_length"] = maps.IPCACHE_STATIC_BITS + prefix.prefixlen
    key["family"] = maps.family_of(prefix)
    key["ip"] = maps.address_bytes(prefix.network_address)
    return key.tobytes()


def ipcache_info(entry: IpcacheEntry) -> bytes:
    info = np.zeros(1, maps.IPCACHE_INFO)
    info["identity"] = entry.identity
    info["node_id"] = entry.node_id
    if entry.tunnel_endpoint is not None:
        info["tunnel_endpoint"] = maps.address_bytes(entry.tunnel_endpoint)
        ipv6 = maps.IPCACHE_TUNNEL_IPV6 if entry.tunnel_endpoint.version == 6 else 0
        info["flags"] = maps.IPCACHE_HAS_TUNNEL | ipv6
    return info.tobytes()


def ipcache_entry(key: bytes, value: bytes) -> tuple[Prefix, IpcacheEntry]:
    where, info = record(key, maps.IPCACHE_KEY), record(value, maps.IPCACHE_INFO)
    address = maps.address_from(where["ip"], int(where["family"]))
    prefix = ip_network((address, int(where["prefix_length"]) - maps.IPCACHE_STATIC_BITS))
    tunnel = None
    if info["flags"] & maps.IPCACHE_HAS_TUNNEL:
        family = maps.FAMILY_IPV6 if info["flags"] & maps.IPCACHE_TUNNEL_IPV6 else maps.FAMILY_IPV4
        tunnel = maps.address_from(info["tunnel_endpoint"], family)
    return prefix, IpcacheEntry(identity=int(info["identity"]), tunnel_endpoint=tunnel, node_id=int(info["node_id"]))
