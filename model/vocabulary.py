"""Numbers of the wire and the words for them.

In:        nothing.
Out:       constant tables; code that prints, parses flags or decodes looks a word up here and nowhere else.
Elsewhere: enum names of the API come from the generated descriptors (proto/flow), not from here.
Source:    Cilium 1.19 monitor and flow API; ICMP names as the IANA registries list them.
"""

from __future__ import annotations

from typing import Final

MESSAGE_TYPES: Final[dict[str, int]] = {
    "drop": 1,
    "debug": 2,
    "capture": 3,
    "trace": 4,
    "policy-verdict": 5,
    "trace-sock": 7,
    "l7": 129,
    "agent": 130,
}
"""Monitor message types by the name used on the command line."""

TRACE_POINTS: Final[dict[int, str]] = {
    0: "to-endpoint",
    1: "to-proxy",
    2: "to-host",
    3: "to-stack",
    4: "to-overlay",
    5: "from-endpoint",
    6: "from-proxy",
    7: "from-host",
    8: "from-stack",
    9: "from-overlay",
    10: "from-network",
    11: "to-network",
    12: "from-crypto",
    13: "to-crypto",
}
"""Observation point text by its number on the perf ring (the sub type of a trace event)."""

TRACE_POINT_TO_API: Final[dict[int, int]] = {
    0: 101,
    1: 1,
    2: 2,
    3: 3,
    4: 4,
    5: 5,
    6: 6,
    7: 7,
    8: 8,
    9: 9,
    10: 10,
    11: 11,
    12: 12,
    13: 13,
}
"""flow.TraceObservationPoint by the number on the perf ring; 0 (to-endpoint) is 101 there."""

TRACE_REASON_TO_API: Final[dict[int, int]] = {
    0: 1,  # NEW
    1: 2,  # ESTABLISHED
    2: 3,  # REPLY
    3: 4,  # RELATED
    4: 5,  # REOPENED
    5: 0,  # TRACE_REASON_UNKNOWN
    6: 6,  # SRV6_ENCAP
    7: 7,  # SRV6_DECAP
    8: 8,  # ENCRYPT_OVERLAY
}
"""flow.TraceReason by the number on the perf ring (without the encrypted bit)."""

POLICY_MATCH_TYPES: Final[dict[int, str]] = {
    0: "none",
    1: "L3-Only",
    2: "L3-L4",
    3: "L4-Only",
    4: "all",
    5: "L3-Proto",
    6: "Proto-Only",
}
"""Which part of a policy entry matched; others print as "unknown"."""

DROP_REASONS: Final[dict[int, str]] = {
    0: "Success",
    2: "Invalid packet",
    3: "Interface",
    4: "Interface Decrypted",
    5: "LB, sock cgroup: No backend slot entry found",
    6: "LB, sock cgroup: No backend entry found",
    7: "LB, sock cgroup: Reverse entry update failed",
    8: "LB, sock cgroup: Reverse entry stale",
    9: "Fragmented packet",
    10: "Fragmented packet entry update failed",
    11: "Missed tail call to custom program",
    12: "Interface Decrypting",
    13: "Interface Encrypting",
    14: "LB: sock cgroup: Reverse entry delete succeeded",
    15: "MTU error message",
    130: "Invalid source mac",
    131: "Invalid destination mac",
    132: "Invalid source ip",
    133: "Policy denied",
    134: "Invalid packet",
    135: "CT: Truncated or invalid header",
    136: "Fragmentation needed",
    137: "CT: Unknown L4 protocol",
    138: "CT: Can't create entry from packet",
    139: "Unsupported L3 protocol",
    140: "Missed tail call",
    141: "Error writing to packet",
    142: "Unknown L4 protocol",
    143: "Unknown ICMPv4 code",
    144: "Unknown ICMPv4 type",
    145: "Unknown ICMPv6 code",
    146: "Unknown ICMPv6 type",
    147: "Error retrieving tunnel key",
    148: "Error retrieving tunnel options",
    149: "Invalid Geneve option",
    150: "Unknown L3 target address",
    151: "Stale or unroutable IP",
    152: "No matching local container found",
    153: "Error while correcting L3 checksum",
    154: "Error while correcting L4 checksum",
    155: "CT: Map insertion failed",
    156: "Invalid IPv6 extension header",
    157: "IP fragmentation not supported",
    158: "Service backend not found",
    160: "No tunnel/encapsulation endpoint (datapath BUG!)",
    161: "NAT 46/64 not enabled",
    162: "Reached EDT rate-limiting drop horizon",
    163: "Unknown connection tracking state",
    164: "Local host is unreachable",
    165: "No configuration available to perform policy decision",
    166: "Unsupported L2 protocol",
    167: "No mapping for NAT masquerade",
    168: "Unsupported protocol for NAT masquerade",
    169: "FIB lookup failed",
    170: "Encapsulation traffic is prohibited",
    171: "Invalid identity",
    172: "Unknown sender",
    173: "NAT not needed",
    174: "Is a ClusterIP",
    175: "First logical datagram fragment not found",
    176: "Forbidden ICMPv6 message",
    177: "Denied by LB src range check",
    178: "Socket lookup failed",
    179: "Socket assign failed",
    180: "Proxy redirection not supported for protocol",
    181: "Policy denied by denylist",
    182: "VLAN traffic disallowed by VLAN filter",
    183: "Incorrect VNI from VTEP",
    184: "Failed to update or lookup TC buffer",
    185: "No SID was found for the IP address",
    186: "SRv6 state was removed during tail call",
    187: "L3 translation from IPv4 to IPv6 failed (NAT46)",
    188: "L3 translation from IPv6 to IPv4 failed (NAT64)",
    189: "Authentication required",
    190: "No conntrack map found",
    191: "No nat map found",
    192: "Invalid ClusterID",
    193: "Unsupported packet protocol for DSR encapsulation",
    194: "No egress gateway found",
    195: "Traffic is unencrypted",
    196: "TTL exceeded",
    197: "No node ID found",
    198: "Rate limited",
    199: "IGMP handled",
    200: "IGMP subscribed",
    201: "Multicast handled",
    202: "Host datapath not ready",
    203: "Endpoint policy program not available",
    204: "No Egress IP configured",
    205: "Punt to proxy",
}
"""Text of drop reasons; numbers below 130 are counters of the metrics map."""

RESERVED_IDENTITIES: Final[dict[int, str]] = {
    0: "unknown",
    1: "host",
    2: "world",
    3: "unmanaged",
    4: "health",
    5: "init",
    6: "remote-node",
    7: "kube-apiserver",
    8: "ingress",
    9: "world-ipv4",
    10: "world-ipv6",
}
"""Names printed for reserved identities."""

RESERVED_IDENTITY_NUMBERS: Final[dict[str, int]] = {
    "host": 1,
    "world": 2,
    "unmanaged": 3,
    "health": 4,
    "init": 5,
    "remote-node": 6,
    "kube-apiserver": 7,
    "ingress": 8,
    "world-ipv4": 9,
    "world-ipv6": 10,
    "overlay-to-encrypt": 11,
}
"""Names of reserved identities accepted as input."""

AGENT_NOTIFICATIONS: Final[dict[str, int]] = {
    "unspecified": 0,
    "message": 1,
    "agent-started": 2,
    "endpoint-regenerate-success": 3,
    "endpoint-regenerate-failure": 4,
    "policy-updated": 5,
    "policy-deleted": 6,
    "endpoint-created": 7,
    "endpoint-deleted": 8,
    "ipcache-upserted": 9,
    "ipcache-deleted": 10,
}
"""Monitor numbers of agent notifications, which are not those of flow.AgentEventType."""

DROP_FILES: Final[dict[int, str]] = {
    1: "bpf_host.c",
    2: "bpf_lxc.c",
    3: "bpf_overlay.c",
    4: "bpf_xdp.c",
    5: "bpf_sock.c",
    6: "bpf_network.c",
    7: "bpf_wireguard.c",
    101: "drop.h",
    102: "srv6.h",
    103: "icmp6.h",
    104: "nodeport.h",
    105: "lb.h",
    106: "mcast.h",
    107: "ipv4.h",
    108: "conntrack.h",
    109: "local_delivery.h",
    110: "trace.h",
    111: "encap.h",
    112: "host_firewall.h",
    113: "nodeport_egress.h",
    114: "ipv6.h",
    115: "classifiers.h",
    # From here on our own programs (bpf/include/drops.h).
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
    220: "packet.h",
    221: "conntrack.h",
    222: "forward.h",
    223: "neighbour.h",
    224: "policy.h",
    229: "proxy.h",
    230: "tail_errors.bpf.c",
    231: "errors.h",
    234: "crc32c.h",
    225: "services.h",
    226: "rewrite.h",
    227: "nat.h",
    232: "tail_host_policy.bpf.c",
    233: "host_policy.h",
}
"""Source files of drop events by file id; others print as "unknown(N)"."""

ICMPV4_TYPES: Final[dict[int, str]] = {
    0: "EchoReply",
    3: "DestinationUnreachable",
    4: "SourceQuench",
    5: "Redirect",
    8: "EchoRequest",
    9: "RouterAdvertisement",
    10: "RouterSolicitation",
    11: "TimeExceeded",
    12: "ParameterProblem",
    13: "TimestampRequest",
    14: "TimestampReply",
    15: "InfoRequest",
    16: "InfoReply",
    17: "AddressMaskRequest",
    18: "AddressMaskReply",
}
"""ICMP type names."""

ICMPV4_CODES: Final[dict[int, dict[int, str]]] = {
    3: {
        0: "Net",
        1: "Host",
        2: "Protocol",
        3: "Port",
        4: "FragmentationNeeded",
        5: "SourceRoutingFailed",
        6: "NetUnknown",
        7: "HostUnknown",
        8: "SourceIsolated",
        9: "NetAdminProhibited",
        10: "HostAdminProhibited",
        11: "NetTOS",
        12: "HostTOS",
        13: "CommAdminProhibited",
        14: "HostPrecedence",
        15: "PrecedenceCutoff",
    },
    5: {0: "Net", 1: "Host", 2: "TOS+Net", 3: "TOS+Host"},
    11: {0: "TTLExceeded", 1: "FragmentReassemblyTimeExceeded"},
    12: {0: "PointerIndicatesError", 1: "MissingOption", 2: "BadLength"},
}
"""Code names by type, for the types that have them."""

ICMPV6_TYPES: Final[dict[int, str]] = {
    1: "DestinationUnreachable",
    2: "PacketTooBig",
    3: "TimeExceeded",
    4: "ParameterProblem",
    128: "EchoRequest",
    129: "EchoReply",
    133: "RouterSolicitation",
    134: "RouterAdvertisement",
    135: "NeighborSolicitation",
    136: "NeighborAdvertisement",
    137: "Redirect",
}
"""ICMPv6 type names."""

ICMPV6_CODES: Final[dict[int, dict[int, str]]] = {
    1: {
        0: "NoRouteToDst",
        1: "AdminProhibited",
        2: "BeyondScopeOfSrc",
        3: "AddressUnreachable",
        4: "PortUnreachable",
        5: "SrcAddressFailedPolicy",
        6: "RejectRouteToDst",
    },
    3: {0: "HopLimitExceeded", 1: "FragmentReassemblyTimeExceeded"},
    4: {0: "ErroneousHeaderField", 1: "UnrecognizedNextHeader", 2: "UnrecognizedIPv6Option"},
}
"""Code names by type, for the types that have them."""

DNS_TYPES: Final[dict[int, str]] = {
    1: "A",
    2: "NS",
    3: "MD",
    4: "MF",
    5: "CNAME",
    6: "SOA",
    7: "MB",
    8: "MG",
    9: "MR",
    10: "NULL",
    11: "WKS",
    12: "PTR",
    13: "HINFO",
    14: "MINFO",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    41: "OPT",
    46: "RRSIG",
    48: "DNSKEY",
    64: "SVCB",
    65: "HTTPS",
    256: "URI",
}
"""DNS record types; others print as UNKNOWN_DNS."""

DNS_RCODES: Final[dict[int, str]] = {
    0: "No Error",
    1: "Format Error",
    2: "Server Failure",
    3: "Non-Existent Domain",
    4: "Not Implemented",
    5: "Query Refused",
    6: "Name Exists when it should not",
    7: "RR Set Exists when it should not",
    8: "RR Set that should exist does not",
    9: "Server Not Authoritative for zone",
    10: "Name not contained in zone",
    16: "Bad OPT Version",
    17: "Key not recognized",
    18: "Signature out of time window",
    19: "Bad TKEY Mode",
    20: "Duplicate key name",
    21: "Algorithm not supported",
    22: "Bad Truncation",
    23: "Bad Cookie",
}
"""DNS response codes in words; others print as UNKNOWN_DNS."""

IGMP_TYPES: Final[dict[int, str]] = {
    17: "IGMP Membership Query",
    18: "IGMPv1 Membership Report",
    22: "IGMPv2 Membership Report",
    34: "IGMPv3 Membership Report",
    23: "Leave Group",
}

VRRP_TYPES: Final[dict[int, str]] = {
    1: "VRRPv2 Advertisement",
}

UNKNOWN_DNS: Final = "Unknown"
