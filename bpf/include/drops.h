/* Why a packet was dropped, and where in our source: numbers of Cilium's drop reasons, files of our own. */
#ifndef FLOWSCOPE_DROPS_H
#define FLOWSCOPE_DROPS_H

enum drop_reason {
	DROP_INVALID_SOURCE_IP = 132,
	DROP_POLICY_DENIED = 133,	/* nothing allows it */
	DROP_INVALID_PACKET = 134,
	DROP_CT_INVALID_HEADER = 135,
	DROP_TOO_BIG = 136,		/* for the tunnel; the sender is told how much fits */
	DROP_CT_UNKNOWN_PROTOCOL = 137,
	DROP_UNSUPPORTED_L3 = 139,
	DROP_MISSED_TAIL_CALL = 140,
	DROP_WRITE_ERROR = 141,
	DROP_NO_TUNNEL_KEY = 147,
	DROP_STALE_OR_UNROUTABLE = 151,
	DROP_CSUM_L3 = 153,
	DROP_CSUM_L4 = 154,		/* or a port that cannot be changed: of SCTP in fragments */
	DROP_CT_CREATE_FAILED = 155,
	DROP_INVALID_EXTENSION_HEADER = 156,
	DROP_NO_BACKEND = 158,		/* of a service; or a port that the service's address does not have */
	DROP_NO_TUNNEL_ENDPOINT = 160,
	DROP_NO_CONFIG = 165,
	DROP_NAT_NO_MAPPING = 167,	/* no port is free, or the node has no address to leave with */
	DROP_NAT_UNSUPPORTED = 168,
	DROP_FIB_LOOKUP_FAILED = 169,
	DROP_ENCAPSULATION_PROHIBITED = 170,
	DROP_INVALID_IDENTITY = 171,
	DROP_IS_CLUSTER_IP = 174,	/* and asked for from outside */
	DROP_FRAGMENT_NOT_FOUND = 175,
	DROP_SOURCE_RANGE = 177,	/* the service is not for this client */
	DROP_SOCKET_NOT_FOUND = 178,	/* a proxy's connection, but the proxy is gone */
	DROP_SOCKET_ASSIGN_FAILED = 179,
	DROP_PROXY_NOT_SUPPORTED = 180,	/* nobody listens at the proxy's port */
	DROP_POLICY_DENY = 181,		/* a rule denies it */
	DROP_AUTH_REQUIRED = 189,
	DROP_TTL_EXCEEDED = 196,
	DROP_HOST_NOT_READY = 202,
	DROP_ENDPOINT_NOT_READY = 203,
};

/* Ids of our files, from 210 on: Cilium's own end at 115, so a reader can keep both in one table (maps.py: DROP_FILES). */
enum drop_file {
	FILE_UNKNOWN = 0,
	FILE_FROM_CONTAINER = 210,
	FILE_TO_CONTAINER = 211,
	FILE_ENDPOINT_INGRESS = 212,
	FILE_FROM_OVERLAY = 213,
	FILE_TO_OVERLAY = 214,
	FILE_FROM_HOST = 215,
	FILE_FROM_NETDEV = 216,
	FILE_TO_NETDEV = 217,
	FILE_TO_HOST = 218,
	FILE_SERVICE = 219,
	FILE_PACKET = 220,
	FILE_CONNTRACK = 221,
	FILE_FORWARD = 222,
	FILE_NEIGHBOUR = 223,
	FILE_POLICY = 224,
	FILE_SERVICES = 225,
	FILE_REWRITE = 226,
	FILE_NAT = 227,
	FILE_PROXY = 229,
	FILE_ERRORS = 230,
	FILE_ERRORS_HEADER = 231,
	FILE_TAIL_HOST_POLICY = 232,
	FILE_HOST_POLICY = 233,
	FILE_CRC32C = 234,
};

/* Folded to a constant by the compiler; a file that is missing here shows as unknown. */
#define FILE_IS(name)	(__builtin_strcmp(__FILE_NAME__, name) == 0)
#define FILE_ID	( \
	FILE_IS("tc_from_container.bpf.c") ? FILE_FROM_CONTAINER : \
	FILE_IS("tc_to_container.bpf.c") ? FILE_TO_CONTAINER : \
	FILE_IS("tail_endpoint_ingress.bpf.c") ? FILE_ENDPOINT_INGRESS : \
	FILE_IS("tc_from_overlay.bpf.c") ? FILE_FROM_OVERLAY : \
	FILE_IS("tc_to_overlay.bpf.c") ? FILE_TO_OVERLAY : \
	FILE_IS("tc_from_host.bpf.c") ? FILE_FROM_HOST : \
	FILE_IS("tc_from_netdev.bpf.c") ? FILE_FROM_NETDEV : \
	FILE_IS("tc_to_netdev.bpf.c") ? FILE_TO_NETDEV : \
	FILE_IS("tc_to_host.bpf.c") ? FILE_TO_HOST : \
	FILE_IS("tail_service.bpf.c") ? FILE_SERVICE : \
	FILE_IS("tail_errors.bpf.c") ? FILE_ERRORS : \
	FILE_IS("errors.h") ? FILE_ERRORS_HEADER : \
	FILE_IS("crc32c.h") ? FILE_CRC32C : \
	FILE_IS("packet.h") ? FILE_PACKET : \
	FILE_IS("conntrack.h") ? FILE_CONNTRACK : \
	FILE_IS("forward.h") ? FILE_FORWARD : \
	FILE_IS("neighbour.h") ? FILE_NEIGHBOUR : \
	FILE_IS("policy.h") ? FILE_POLICY : \
	FILE_IS("services.h") ? FILE_SERVICES : \
	FILE_IS("rewrite.h") ? FILE_REWRITE : \
	FILE_IS("nat.h") ? FILE_NAT : \
	FILE_IS("proxy.h") ? FILE_PROXY : \
	FILE_IS("tail_host_policy.bpf.c") ? FILE_TAIL_HOST_POLICY : \
	FILE_IS("host_policy.h") ? FILE_HOST_POLICY : FILE_UNKNOWN)

/* `return DROP(pkt, reason, ext)`: a negative result that remembers where it was decided. */
#define DROP(pkt, reason, ext)	({ \
	(pkt)->drop_line = __LINE__; \
	(pkt)->drop_file = FILE_ID; \
	(pkt)->drop_ext = (ext); \
	-(reason); \
})

#endif
