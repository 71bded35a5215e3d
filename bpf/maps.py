"""Layouts of the maps as Python sees them: the other side of include/layouts.h.

In:        nothing; these are facts.
Out:       numpy dtypes for keys and values, names of maps, the table of drop files.
Elsewhere: handles.py moves the bytes; datapath.py gives them meaning. A test compares every offset with the C side.

Fields ending in `_be` and addresses are as on the wire; all others are little endian, which every machine that runs
this has.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

import numpy as np
import numpy.typing as npt

EVENTS: Final = "cilium_events"
EVENT_STATS: Final = "flowscope_events"
INSERTS: Final = "flowscope_inserts"
METRICS: Final = "cilium_metrics"
CONFIG: Final = "flowscope_config"
ENDPOINTS: Final = "cilium_lxc"
INTERFACES: Final = "flowscope_interfaces"
CALL_POLICY: Final = "cilium_call_policy"
EGRESSCALL_POLICY: Final = "cilium_egresscall_policy"
POLICIES: Final = "flowscope_policies"
POLICY_PIN: Final = "cilium_policy_v2_"
"""Pin of one endpoint's policy: this and the endpoint's id."""
IPCACHE: Final = "cilium_ipcache_v2"
CT4_TCP: Final = "cilium_ct4_global"
CT4_ANY: Final = "cilium_ct_any4_global"
CT6_TCP: Final = "cilium_ct6_global"
CT6_ANY: Final = "cilium_ct_any6_global"
FRAGMENTS: Final = "cilium_fragments"
LB4_SERVICES: Final = "cilium_lb4_services_v2"
LB6_SERVICES: Final = "cilium_lb6_services_v2"
LB4_BACKENDS: Final = "cilium_lb4_backends_v3"
LB6_BACKENDS: Final = "cilium_lb6_backends_v3"
LB4_REVERSE_NAT: Final = "cilium_lb4_reverse_nat"
LB6_REVERSE_NAT: Final = "cilium_lb6_reverse_nat"
LB4_AFFINITY: Final = "cilium_lb4_affinity"
LB6_AFFINITY: Final = "cilium_lb6_affinity"
AFFINITY_MATCH: Final = "cilium_lb_affinity_match"
LB4_SOURCE_RANGE: Final = "cilium_lb4_source_range"
LB6_SOURCE_RANGE: Final = "cilium_lb6_source_range"
MAGLEV: Final = "cilium_lb4_maglev"
CALLS: Final = "cilium_calls"
ERROR_CALLS: Final = "flowscope_errors"
NAT4: Final = "cilium_snat_v4_external"
NAT6: Final = "cilium_snat_v6_external"
NOT_MASQUERADED: Final = "cilium_ipmasq"
ANNOUNCED: Final = "cilium_l2_responder"
AUTH: Final = "cilium_auth_map"
AUTH_WANTED: Final = "flowscope_auth_wanted"
AUTH_MISSED: Final = "flowscope_auth_missed"

CONNTRACK: Final = (CT4_TCP, CT4_ANY, CT6_TCP, CT6_ANY)
SERVICES: Final = (
    LB4_SERVICES,
    LB6_SERVICES,
    LB4_BACKENDS,
    LB6_BACKENDS,
    LB4_REVERSE_NAT,
    LB6_REVERSE_NAT,
    LB4_AFFINITY,
    LB6_AFFINITY,
    AFFINITY_MATCH,
    LB4_SOURCE_RANGE,
    LB6_SOURCE_RANGE,
    MAGLEV,
)

NODE_CONFIG: Final = np.dtype(
    [
        ("aggregation", "<u4"),
        ("monitor_interval_s", "<u4"),
        ("overlay_ifindex", "<u4"),
        ("host_ifindex", "<u4"),
        ("host_mac", "u1", (6,)),
        ("host_endpoint_id", "<u2"),
        ("tunnel_port_be", ">u2"),
        ("monitor_flags", "u1"),
        ("flags", "u1"),
        ("auth_renew_s", "<u2"),
        ("tunnel_mtu", "<u2"),
        ("masquerade4", "u1", (16,)),
        ("masquerade6", "u1", (16,)),
    ]
)
ENDPOINT_KEY: Final = np.dtype([("ip", "u1", (16,)), ("family", "u1"), ("key", "u1"), ("cluster_id", "<u2")])
ENDPOINT_INFO: Final = np.dtype(
    [
        ("ifindex", "<u4"),
        ("unused", "<u2"),
        ("endpoint_id", "<u2"),
        ("flags", "<u4"),
        ("pad", "<u4"),
        ("mac", "u1", (8,)),
        ("host_mac", "u1", (8,)),
        ("identity", "<u4"),
        ("parent_ifindex", "<u4"),
        ("pad2", "<u8"),
    ]
)
INTERFACE_INFO: Final = np.dtype(
    [
        ("endpoint_id", "<u2"),
        ("pad", "<u2"),
        ("identity", "<u4"),
        ("ip4", "u1", (4,)),
        ("ip6", "u1", (16,)),
        ("mac", "u1", (6,)),
        ("host_mac", "u1", (6,)),
        ("pad2", "<u4"),
    ]
)
IPCACHE_KEY: Final = np.dtype(
    [("prefix_length", "<u4"), ("cluster_id", "<u2"), ("pad", "u1"), ("family", "u1"), ("ip", "u1", (16,))]
)
IPCACHE_INFO: Final = np.dtype(
    [("identity", "<u4"), ("tunnel_endpoint", "u1", (16,)), ("node_id", "<u2"), ("key", "u1"), ("flags", "u1")]
)
POLICY_KEY: Final = np.dtype(
    [("prefix_length", "<u4"), ("identity", "<u4"), ("egress", "u1"), ("protocol", "u1"), ("dport", ">u2")]
)
POLICY_ENTRY: Final = np.dtype(
    [("proxy_port_be", ">u2"), ("flags", "u1"), ("auth", "u1"), ("precedence", "<u4"), ("cookie", "<u4")]
)
AUTH_KEY: Final = np.dtype(
    [
        ("local_identity", "<u4"),
        ("remote_identity", "<u4"),
        ("remote_node_id", "<u2"),
        ("auth_type", "u1"),
        ("pad", "u1"),
    ]
)
AUTH_RECORD: Final = np.dtype([("expires_ns", "<u8")])
CT4_KEY: Final = np.dtype(
    [
        ("daddr", "u1", (4,)),
        ("saddr", "u1", (4,)),
        ("dport", ">u2"),
        ("sport", ">u2"),
        ("protocol", "u1"),
        ("flags", "u1"),
    ]
)
CT6_KEY: Final = np.dtype(
    [
        ("daddr", "u1", (16,)),
        ("saddr", "u1", (16,)),
        ("dport", ">u2"),
        ("sport", ">u2"),
        ("protocol", "u1"),
        ("flags", "u1"),
    ]
)
CT_ENTRY: Final = np.dtype(
    [
        ("rx_packets", "<u8"),
        ("rx_bytes", "<u8"),
        ("tx_packets", "<u8"),
        ("tx_bytes", "<u8"),
        ("lifetime_s", "<u4"),
        ("flags", "<u2"),
        ("rev_nat_index_be", ">u2"),
        ("ifindex", "<u2"),
        ("tx_flags_seen", "u1"),
        ("rx_flags_seen", "u1"),
        ("src_identity", "<u4"),
        ("last_tx_report_s", "<u4"),
        ("last_rx_report_s", "<u4"),
    ]
)
LB4_KEY: Final = np.dtype(
    [
        ("address", "u1", (4,)),
        ("dport", ">u2"),
        ("slot", "<u2"),
        ("protocol", "u1"),
        ("scope", "u1"),
        ("pad", "u1", (2,)),
    ]
)
LB6_KEY: Final = np.dtype(
    [
        ("address", "u1", (16,)),
        ("dport", ">u2"),
        ("slot", "<u2"),
        ("protocol", "u1"),
        ("scope", "u1"),
        ("pad", "u1", (2,)),
    ]
)
LB_SERVICE: Final = np.dtype(
    [
        ("target", "<u4"),
        ("count", "<u2"),
        ("rev_nat_index_be", ">u2"),
        ("flags", "u1"),
        ("flags2", "u1"),
        ("quarantined", "<u2"),
    ]
)
LB4_BACKEND: Final = np.dtype(
    [
        ("address", "u1", (4,)),
        ("port", ">u2"),
        ("protocol", "u1"),
        ("state", "u1"),
        ("cluster_id", "<u2"),
        ("zone", "u1"),
        ("pad", "u1"),
    ]
)
LB6_BACKEND: Final = np.dtype(
    [
        ("address", "u1", (16,)),
        ("port", ">u2"),
        ("protocol", "u1"),
        ("state", "u1"),
        ("cluster_id", "<u2"),
        ("zone", "u1"),
        ("pad", "u1"),
    ]
)
LB4_REVERSE_NAT_VALUE: Final = np.dtype([("address", "u1", (4,)), ("port", ">u2")])
LB6_REVERSE_NAT_VALUE: Final = np.dtype([("address", "u1", (16,)), ("port", ">u2")])
AFFINITY_KEY: Final = np.dtype(
    [("client", "u1", (16,)), ("rev_nat_index_be", ">u2"), ("netns_cookie", "u1"), ("pad", "u1", (5,))]
)
AFFINITY_VALUE: Final = np.dtype([("last_used_s", "<u8"), ("backend_id", "<u4"), ("pad", "<u4")])
AFFINITY_MATCH_KEY: Final = np.dtype([("backend_id", "<u4"), ("rev_nat_index_be", ">u2"), ("pad", "<u2")])
SOURCE_RANGE_KEY: Final = np.dtype(
    [("prefix_length", "<u4"), ("rev_nat_index_be", ">u2"), ("pad", "<u2"), ("address", "u1", (16,))]
)
NAT_KEY: Final = np.dtype(
    [
        ("daddr", "u1", (16,)),
        ("saddr", "u1", (16,)),
        ("dport", ">u2"),
        ("sport", ">u2"),
        ("protocol", "u1"),
        ("direction", "u1"),
        ("pad", "u1", (2,)),
    ]
)
NAT_ENTRY: Final = np.dtype([("address", "u1", (16,)), ("port", ">u2"), ("pad", "<u2"), ("created_s", "<u4")])
ANNOUNCE_KEY: Final = np.dtype([("address", "u1", (16,)), ("ifindex", "<u4"), ("family", "u1"), ("pad", "u1", (3,))])
ANNOUNCE_VALUE: Final = np.dtype([("answers", "<u8"), ("mac", "u1", (6,)), ("pad", "u1", (2,))])
METRICS_KEY: Final = np.dtype(
    [("reason", "u1"), ("direction", "u1"), ("line", "<u2"), ("file", "u1"), ("reserved", "u1", (3,))]
)
METRICS_VALUE: Final = np.dtype([("count", "<u8"), ("bytes", "<u8")])
EVENT_STATS_VALUE: Final = np.dtype([("stored", "<u8"), ("ring_full", "<u8"), ("no_reader", "<u8"), ("failed", "<u8")])

C_STRUCTS: Final[dict[str, np.dtype[np.void]]] = {
    "node_config": NODE_CONFIG,
    "endpoint_key": ENDPOINT_KEY,
    "endpoint_info": ENDPOINT_INFO,
    "interface_info": INTERFACE_INFO,
    "ipcache_key": IPCACHE_KEY,
    "ipcache_info": IPCACHE_INFO,
    "policy_key": POLICY_KEY,
    "policy_entry": POLICY_ENTRY,
    "auth_key": AUTH_KEY,
    "auth_record": AUTH_RECORD,
    "ct4_key": CT4_KEY,
    "ct6_key": CT6_KEY,
    "ct_entry": CT_ENTRY,
    "lb4_key": LB4_KEY,
    "lb6_key": LB6_KEY,
    "lb_service": LB_SERVICE,
    "lb4_backend": LB4_BACKEND,
    "lb6_backend": LB6_BACKEND,
    "lb4_reverse_nat": LB4_REVERSE_NAT_VALUE,
    "lb6_reverse_nat": LB6_REVERSE_NAT_VALUE,
    "affinity_key": AFFINITY_KEY,
    "affinity_value": AFFINITY_VALUE,
    "affinity_match": AFFINITY_MATCH_KEY,
    "source_range_key": SOURCE_RANGE_KEY,
    "nat_key": NAT_KEY,
    "nat_entry": NAT_ENTRY,
    "announce_key": ANNOUNCE_KEY,
    "announce_value": ANNOUNCE_VALUE,
    "metrics_key": METRICS_KEY,
    "metrics_value": METRICS_VALUE,
    "event_stats": EVENT_STATS_VALUE,
}
"""Name of the struct in include/layouts.h for each dtype: what the test walks through."""

FAMILY_IPV4: Final = 1
FAMILY_IPV6: Final = 2
ENDPOINT_HOST: Final = 1
IPCACHE_STATIC_BITS: Final = 32
IPCACHE_HAS_TUNNEL: Final = 2
IPCACHE_TUNNEL_IPV6: Final = 4
POLICY_STATIC_BITS: Final = 40
POLICY_FULL_BITS: Final = 64
POLICY_DENY: Final = 1
POLICY_FINAL: Final = 2
POLICY_PREFIX_SHIFT: Final = 3
POLICY_SETTINGS_IDENTITY: Final = 0xFFFFFFFF
POLICY_ENFORCED_INGRESS: Final = 1
POLICY_ENFORCED_EGRESS: Final = 2
POLICY_AUDIT: Final = 4
SERVICE_EXTERNAL_IP: Final = 0x01
SERVICE_NODE_PORT: Final = 0x02
SERVICE_EXTERNAL_LOCAL: Final = 0x04
SERVICE_AFFINITY: Final = 0x10
SERVICE_LOAD_BALANCER: Final = 0x20
SERVICE_ROUTABLE: Final = 0x40
SERVICE_SOURCE_RANGES: Final = 0x80
SERVICE2_L7: Final = 0x04
SERVICE2_TWO_SCOPES: Final = 0x20
ALGORITHM_SHIFT: Final = 24
ALGORITHM_RANDOM: Final = 1
ALGORITHM_MAGLEV: Final = 2
SOURCE_RANGE_STATIC_BITS: Final = 32
NODE_NO_REJECT: Final = 1
NODE_HOST_POLICY: Final = 2
NODE_TELL_DENIED: Final = 4
CALL_SERVICE: Final = 0
CALL_CONTAINER_TRANSLATED: Final = 1
CALL_HOST_TRANSLATED: Final = 2
CALL_NETDEV_TRANSLATED: Final = 3
CALL_REVERSE: Final = 4
CALL_HOST_ARRIVAL: Final = 5
CALL_HOST_DEPARTURE: Final = 6
CALL_TOO_BIG: Final = 0
CALL_OUTSIDE_ERROR: Final = 1
CALL_DENIED: Final = 2
NAT_OUT: Final = 0
NAT_IN: Final = 1

DROP_FILES: Final = {
    210: "tc_from_container.bpf.c",
    211: "tc_to_container.bpf.c",
    212: "tail_endpoint_ingress.bpf.c",
    213: "tc_from_overlay.bpf.c",
    214: "tc_to_overlay.bpf.c",
    215: "tc_from_host.bpf.c",
    216: "tc_from_netdev.bpf.c",
    217: "tc_to_netdev.bpf.c",
    218: "tc_to_host.bpf.c",
    219: "tail_service.bpf.c",
    230: "tail_errors.bpf.c",
    220: "packet.h",
    221: "conntrack.h",
    222: "forward.h",
    223: "neighbour.h",
    224: "policy.h",
    229: "proxy.h",
    225: "services.h",
    226: "rewrite.h",
    227: "nat.h",
    231: "errors.h",
    232: "tail_host_policy.bpf.c",
    233: "host_policy.h",
    234: "crc32c.h",
}
"""Names of the `file` number in drop events of our own programs (include/drops.h)."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def family_of(address: Address | Network) -> int:
    """FAMILY_IPV4 or FAMILY_IPV6."""
    return FAMILY_IPV4 if address.version == 4 else FAMILY_IPV6


def address_bytes(address: Address) -> npt.NDArray[np.uint8]:
    """16 bytes as in `union addr`: IPv4 in the first 4, the rest zero."""
    return np.frombuffer(address.packed.ljust(16, b"\0"), np.uint8)


def address_from(raw: npt.NDArray[np.uint8], family: int) -> Address:
    """The address in a `union addr` of that family."""
    packed = raw.tobytes()
    return IPv4Address(packed[:4]) if family == FAMILY_IPV4 else IPv6Address(packed[:16])


def mac_bytes(mac: str) -> bytes:
    """6 bytes of "aa:bb:cc:dd:ee:ff".

    Raises: ValueError for anything else.
    """
    parts = mac.split(":")
    if len(parts) != 6 or not all(len(part) == 2 for part in parts):
        raise ValueError(f"a MAC address looks like aa:bb:cc:dd:ee:ff, got {mac!r}")
    return bytes(int(part, 16) for part in parts)


def mac_text(raw: npt.NDArray[np.uint8]) -> str:
    """The first 6 bytes as "aa:bb:cc:dd:ee:ff"."""
    return raw.tobytes()[:6].hex(":")
