/* Every struct that crosses into user space: map keys and values, and events. Host byte order unless the type is
 * __be; padding is spelled out and zeroed, because map keys compare as bytes. Python's side is maps.py (maps) and
 * model/ (events); tests compare the offsets.
 */
#ifndef FLOWSCOPE_LAYOUTS_H
#define FLOWSCOPE_LAYOUTS_H

#include "defs.h"

union addr {
	__be32	ip4;			/* IPv4 uses the first 4 bytes, the rest is zero */
	__be32	ip6[4];
};

/* ---- settings: flowscope_config, one entry ---- */

struct node_config {
	__u32	aggregation;		/* enum aggregation */
	__u32	monitor_interval_s;	/* a connection's direction is reported again after this long */
	__u32	overlay_ifindex;	/* 0: no tunnels */
	__u32	host_ifindex;		/* cilium_host; 0: packets for the node go up where they are */
	__u8	host_mac[6];
	__u16	host_endpoint_id;	/* `source` of events that host programs send; 0: none */
	__be16	tunnel_port_be;		/* UDP port of the overlay */
	__u8	monitor_flags;		/* TCP flags whose first sight is reported */
	__u8	flags;			/* NODE_* */
	__u16	auth_renew_s;		/* records of authentication are asked for again this long before they are over */
	__u16	tunnel_mtu;		/* what fits into the tunnel; 0: not known, so nobody is told */
	union addr masquerade4;		/* source of what pods send to the world; unspecified: their own */
	union addr masquerade6;
};
_Static_assert(sizeof(struct node_config) == 64, "layout known to maps.py");

#define NODE_NO_REJECT	1	/* clients of a service without backends hear nothing */
#define NODE_HOST_POLICY	2	/* policies may be about the node: its connections are tracked */
#define NODE_TELL_DENIED	4	/* pods hear that a policy denies what they send */

enum aggregation {
	AGGREGATE_NONE = 0,
	AGGREGATE_LOWEST = 1,		/* no from-* points */
	AGGREGATE_LOW = 2,
	AGGREGATE_MEDIUM = 3,		/* and only what connection tracking asks for */
	AGGREGATE_MAX = 4,
};

/* ---- endpoints ---- */

struct endpoint_key {			/* cilium_lxc: who on this node has the address */
	union addr ip;
	__u8	family;
	__u8	key;
	__u16	cluster_id;
};
_Static_assert(sizeof(struct endpoint_key) == 20, "layout known to maps.py");

struct endpoint_info {
	__u32	ifindex;		/* host side of the veth */
	__u16	unused;
	__u16	endpoint_id;
	__u32	flags;			/* ENDPOINT_HOST */
	__u32	pad;
	__u8	mac[8];			/* of the device in the pod; 6 bytes used */
	__u8	host_mac[8];		/* of the host side; 6 bytes used */
	__u32	identity;
	__u32	parent_ifindex;
	__u64	pad2;
};
_Static_assert(sizeof(struct endpoint_info) == 48, "layout known to maps.py");
_Static_assert(offsetof(struct endpoint_info, identity) == 32, "layout known to maps.py");

#define ENDPOINT_HOST	1		/* the address belongs to the node itself */

struct interface_info {			/* flowscope_interfaces, by ifindex: whose veth is this */
	__u16	endpoint_id;
	__u16	pad;
	__u32	identity;
	__be32	ip4;			/* 0: the endpoint has none */
	union addr ip6;
	__u8	mac[6];			/* of the device in the pod */
	__u8	host_mac[6];
	__u32	pad2;
};
_Static_assert(sizeof(struct interface_info) == 44, "layout known to maps.py");

/* ---- ipcache: longest prefix wins ---- */

struct ipcache_key {			/* cilium_ipcache_v2 */
	__u32	prefix_length;		/* IPCACHE_STATIC_BITS + bits of the address */
	__u16	cluster_id;
	__u8	pad;
	__u8	family;
	union addr ip;
};
_Static_assert(sizeof(struct ipcache_key) == 24, "layout known to maps.py");

#define IPCACHE_STATIC_BITS	32

struct ipcache_info {
	__u32	identity;
	union addr tunnel_endpoint;
	__u16	node_id;		/* of that node, for records of authentication; 0: this one, or none */
	__u8	key;
	__u8	flags;			/* IPCACHE_* */
};
_Static_assert(sizeof(struct ipcache_info) == 24, "layout known to maps.py");

#define IPCACHE_SKIP_TUNNEL	1
#define IPCACHE_HAS_TUNNEL	2
#define IPCACHE_TUNNEL_IPV6	4

/* ---- policy: longest prefix of protocol and port wins, for one identity ---- */

struct policy_key {			/* of the maps in flowscope_policies */
	__u32	prefix_length;		/* POLICY_STATIC_BITS + bits of protocol and port */
	__u32	identity;		/* of the other side; 0: any */
	__u8	egress;			/* 1: what the endpoint sends */
	__u8	protocol;
	__be16	dport;			/* ICMP: type */
};
_Static_assert(sizeof(struct policy_key) == 12, "layout known to maps.py");

#define POLICY_STATIC_BITS	40
#define POLICY_FULL_BITS	64

struct policy_entry {
	__be16	proxy_port_be;		/* 0: no proxy */
	__u8	flags;			/* POLICY_*; prefix length of protocol and port from POLICY_PREFIX_SHIFT on */
	__u8	auth;			/* type in the low 7 bits; 0x80: asked for by name */
	__u32	precedence;
	__u32	cookie;			/* which rules made this entry */
};
_Static_assert(sizeof(struct policy_entry) == 12, "layout known to maps.py");

#define POLICY_DENY		1
#define POLICY_FINAL		2	/* whatever is said about any identity changes nothing: need not be asked for */
#define POLICY_PREFIX_SHIFT	3
#define POLICY_AUTH_TYPE	0x7F
#define POLICY_AUTH_BY_NAME	0x80

/* One entry is no rule: its cookie says how the map is to be used. It stands in the map, so that both change at once. */
#define POLICY_SETTINGS_IDENTITY	0xFFFFFFFF
#define POLICY_ENFORCED_INGRESS	METRIC_INGRESS	/* verdicts of this direction are told */
#define POLICY_ENFORCED_EGRESS	METRIC_EGRESS
#define POLICY_AUDIT		4		/* what is denied passes, and is told */

/* ---- authentication ---- */

struct auth_key {			/* cilium_auth_map, flowscope_auth_wanted */
	__u32	local_identity;		/* of the endpoint whose policy asks */
	__u32	remote_identity;
	__u16	remote_node_id;		/* 0: this node */
	__u8	auth_type;
	__u8	pad;
};
_Static_assert(sizeof(struct auth_key) == 12, "layout known to maps.py");

#define AUTH_REQUIRED	1		/* the only type that can be satisfied; 2 always fails */

struct auth_record {
	__u64	expires_ns;		/* since the machine started */
};

/* ---- connection tracking ---- */

struct ct4_key {			/* cilium_ct4_global, cilium_ct_any4_global */
	__be32	daddr;
	__be32	saddr;
	__be16	dport;
	__be16	sport;
	__u8	protocol;
	__u8	flags;			/* enum ct_flags */
} __attribute__((packed));
_Static_assert(sizeof(struct ct4_key) == 14, "layout known to maps.py");

struct ct6_key {			/* cilium_ct6_global, cilium_ct_any6_global */
	union addr daddr;
	union addr saddr;
	__be16	dport;
	__be16	sport;
	__u8	protocol;
	__u8	flags;
} __attribute__((packed));
_Static_assert(sizeof(struct ct6_key) == 38, "layout known to maps.py");

enum ct_flags {				/* direction in which the connection was opened, seen from the endpoint */
	CT_OUT = 0,
	CT_IN = 1,
	CT_RELATED_TO = 2,		/* ICMP errors about it: ports are 0 */
	CT_SERVICE = 4,
};

struct ct_entry {
	__u64	rx_packets;
	__u64	rx_bytes;
	__u64	tx_packets;
	__u64	tx_bytes;
	__u32	lifetime_s;		/* expiry, coarse monotonic seconds */
	__u16	flags;			/* CT_ENTRY_* */
	__be16	rev_nat_index_be;
	__u16	ifindex;
	__u8	tx_flags_seen;
	__u8	rx_flags_seen;
	__u32	src_identity;
	__u32	last_tx_report_s;
	__u32	last_rx_report_s;
};
_Static_assert(sizeof(struct ct_entry) == 56, "layout known to maps.py");

#define CT_ENTRY_RX_CLOSING	0x01
#define CT_ENTRY_TX_CLOSING	0x02
#define CT_ENTRY_CLOSING	(CT_ENTRY_RX_CLOSING | CT_ENTRY_TX_CLOSING)
#define CT_ENTRY_LOOPBACK	0x08	/* a pod reached itself through a service */
#define CT_ENTRY_SEEN_NON_SYN	0x10
#define CT_ENTRY_NODE_PORT	0x20	/* this node translated it for a client that is no endpoint here; of the client's
					 * half of it, and of the server's
					 */
#define CT_ENTRY_PROXY		0x40	/* one side of it is a proxy of this node */
#define CT_ENTRY_FROM_L7LB	0x100	/* a load balancer of this node opened it in the pod's name */
#define CT_ENTRY_NO_ROUTE	0x200	/* the node has no way to where it leads */
/* How packets of the connection are handled: chosen when it is made, and made again when the choice changes. */
#define CT_ENTRY_HANDLING	(CT_ENTRY_LOOPBACK | CT_ENTRY_NODE_PORT | CT_ENTRY_PROXY | \
				 CT_ENTRY_FROM_L7LB | CT_ENTRY_NO_ROUTE)

/* ---- services ---- */

struct lb4_key {			/* cilium_lb4_services_v2 */
	__be32	address;
	__be16	dport;			/* 0 with protocol 0: the address itself, for ports nobody offers */
	__u16	slot;			/* 0: frontend; 1..count: its backends */
	__u8	protocol;
	__u8	scope;			/* enum lb_scope */
	__u8	pad[2];
};
_Static_assert(sizeof(struct lb4_key) == 12, "layout known to maps.py");

struct lb6_key {			/* cilium_lb6_services_v2 */
	union addr address;
	__be16	dport;
	__u16	slot;
	__u8	protocol;
	__u8	scope;
	__u8	pad[2];
};
_Static_assert(sizeof(struct lb6_key) == 24, "layout known to maps.py");

enum lb_scope {
	SCOPE_EXTERNAL = 0,
	SCOPE_INTERNAL = 1,		/* what clients of the cluster get, where the two differ */
};

struct lb_service {
	__u32	target;			/* slot: id of its backend; frontend: port of the proxy as on the wire
					 * (SERVICE2_L7), or seconds of affinity, and the algorithm above
					 */
	__u16	count;			/* backends for new connections */
	__be16	rev_nat_index_be;
	__u8	flags;			/* SERVICE_* */
	__u8	flags2;			/* SERVICE2_* */
	__u16	quarantined;
};
_Static_assert(sizeof(struct lb_service) == 12, "layout known to maps.py");

#define SERVICE_EXTERNAL_IP	0x01
#define SERVICE_NODE_PORT	0x02
#define SERVICE_EXTERNAL_LOCAL	0x04	/* only backends of this node */
#define SERVICE_AFFINITY	0x10
#define SERVICE_LOAD_BALANCER	0x20
#define SERVICE_ROUTABLE	0x40	/* may be used from outside */
#define SERVICE_SOURCE_RANGES	0x80
#define SERVICE2_L7		0x04	/* a proxy chooses the backend */
#define SERVICE2_TWO_SCOPES	0x20

#define AFFINITY_TIMEOUT_MASK	0xFFFFFF
#define ALGORITHM_SHIFT		24
#define ALGORITHM_RANDOM	1
#define ALGORITHM_MAGLEV	2
#define MAGLEV_SIZE		16381

struct lb4_backend {			/* cilium_lb4_backends_v3, by id */
	__be32	address;
	__be16	port;
	__u8	protocol;
	__u8	state;			/* enum backend_state */
	__u16	cluster_id;
	__u8	zone;
	__u8	pad;
};
_Static_assert(sizeof(struct lb4_backend) == 12, "layout known to maps.py");

struct lb6_backend {			/* cilium_lb6_backends_v3 */
	union addr address;
	__be16	port;
	__u8	protocol;
	__u8	state;
	__u16	cluster_id;
	__u8	zone;
	__u8	pad;
};
_Static_assert(sizeof(struct lb6_backend) == 24, "layout known to maps.py");

enum backend_state {
	BACKEND_ACTIVE = 0,
	BACKEND_TERMINATING = 1,	/* keeps its connections, gets no new ones */
};

struct lb4_reverse_nat {		/* cilium_lb4_reverse_nat, by index: the frontend's address */
	__be32	address;
	__be16	port;
} __attribute__((packed));
_Static_assert(sizeof(struct lb4_reverse_nat) == 6, "layout known to maps.py");

struct lb6_reverse_nat {
	union addr address;
	__be16	port;
} __attribute__((packed));
_Static_assert(sizeof(struct lb6_reverse_nat) == 18, "layout known to maps.py");

struct affinity_key {			/* cilium_lb4_affinity, cilium_lb6_affinity */
	union addr client;
	__be16	rev_nat_index_be;
	__u8	netns_cookie;		/* 1: `client` is the cookie of a network namespace */
	__u8	pad[5];
};
_Static_assert(sizeof(struct affinity_key) == 24, "layout known to maps.py");

struct affinity_value {
	__u64	last_used_s;		/* coarse monotonic seconds */
	__u32	backend_id;
	__u32	pad;
};
_Static_assert(sizeof(struct affinity_value) == 16, "layout known to maps.py");

struct affinity_match {			/* cilium_lb_affinity_match: backends that a client may be kept at */
	__u32	backend_id;
	__be16	rev_nat_index_be;
	__u16	pad;
};
_Static_assert(sizeof(struct affinity_match) == 8, "layout known to maps.py");

struct source_range_key {		/* cilium_lb4_source_range, cilium_lb6_source_range: longest prefix */
	__u32	prefix_length;		/* SOURCE_RANGE_STATIC_BITS + bits of the address */
	__be16	rev_nat_index_be;
	__u16	pad;
	union addr address;
};
_Static_assert(sizeof(struct source_range_key) == 24, "layout known to maps.py");

#define SOURCE_RANGE_STATIC_BITS	32

/* ---- source translation, announced addresses ---- */

struct nat_key {			/* cilium_snat_v4_external, cilium_snat_v6_external */
	union addr daddr;
	union addr saddr;
	__be16	dport;
	__be16	sport;
	__u8	protocol;
	__u8	direction;		/* enum nat_direction */
	__u8	pad[2];
};
_Static_assert(sizeof(struct nat_key) == 40, "layout known to maps.py");

enum nat_direction {
	NAT_OUT = 0,			/* as the packet is before it is translated */
	NAT_IN = 1,			/* as its answer arrives */
};

struct nat_entry {
	union addr address;		/* NAT_OUT: new source; NAT_IN: the source that it was */
	__be16	port;
	__u16	pad;
	__u32	created_s;		/* coarse monotonic seconds */
};
_Static_assert(sizeof(struct nat_entry) == 24, "layout known to maps.py");

struct announce_key {			/* cilium_l2_responder: addresses this node answers for, by device */
	union addr address;
	__u32	ifindex;
	__u8	family;
	__u8	pad[3];
};
_Static_assert(sizeof(struct announce_key) == 24, "layout known to maps.py");

struct announce_value {
	__u64	answers;
	__u8	mac[6];
	__u8	pad[2];
};
_Static_assert(sizeof(struct announce_value) == 16, "layout known to maps.py");

struct reverse_socket_key {		/* cilium_lb_reverse_sk: what a socket was led to */
	__u64	cookie;			/* of the socket */
	union addr address;		/* of the backend */
	__be16	port;
	__u16	pad;
	__u8	family;
	__u8	pad2[3];
};
_Static_assert(sizeof(struct reverse_socket_key) == 32, "no padding of the compiler");

struct reverse_socket {			/* and what it had asked for */
	union addr address;
	__be16	port;
	__be16	rev_nat_index_be;	/* of the service, which may be gone */
};

struct socket_config {			/* flowscope_sockets, one entry */
	__u64	netns_cookie;		/* sockets of this network namespace are the node's own; all others are left alone */
	__u64	cgroup_id;		/* where the programs hang: the node, for whoever reads events */
};
_Static_assert(sizeof(struct socket_config) == 16, "layout known to sockets.py");

enum counted_map {			/* index in flowscope_inserts: maps that throw entries out when they are full */
	COUNTED_REMOVED = 6,		/* so much behind stands what user space has removed */
	COUNTED_CT4_TCP = 0,
	COUNTED_CT4_ANY,
	COUNTED_CT6_TCP,
	COUNTED_CT6_ANY,
	COUNTED_NAT4,
	COUNTED_NAT6,
	COUNTED_AFFINITY4 = 2 * COUNTED_REMOVED,
	COUNTED_AFFINITY6,
	COUNTED_FRAGMENTS,
	COUNTED_MAPS = 4 * COUNTED_REMOVED,
};

struct fragment_key {			/* cilium_fragments: ports of a datagram, by its id */
	union addr saddr;
	union addr daddr;
	__u32	id;			/* as in the packet: 16 bits for IPv4 */
	__u8	protocol;
	__u8	pad[3];
};
_Static_assert(sizeof(struct fragment_key) == 40, "");

struct fragment_ports {
	__be16	sport;
	__be16	dport;
};

/* ---- counters ---- */

struct metrics_key {			/* cilium_metrics */
	__u8	reason;			/* enum metric_reason, or enum drop_reason */
	__u8	direction;		/* enum metric_direction */
	__u16	line;			/* of a drop */
	__u8	file;
	__u8	reserved[3];
};
_Static_assert(sizeof(struct metrics_key) == 8, "layout known to maps.py");

struct metrics_value {
	__u64	count;
	__u64	bytes;
};

enum metric_reason {
	METRIC_FORWARDED = 0,
	METRIC_PLAIN_IN = 3,
	METRIC_NONE = 255,		/* not counted; never a key */
};

enum metric_direction {
	METRIC_NO_DIRECTION = 0,
	METRIC_INGRESS = 1,
	METRIC_EGRESS = 2,
};

struct event_stats {			/* flowscope_events, one entry per CPU */
	__u64	stored;
	__u64	ring_full;
	__u64	no_reader;
	__u64	failed;
};
_Static_assert(sizeof(struct event_stats) == 32, "layout known to maps.py");

/* ---- events: what precedes the packet bytes in a record of cilium_events ---- */

enum message_type {
	MESSAGE_DROP = 1,
	MESSAGE_TRACE = 4,
	MESSAGE_POLICY_VERDICT = 5,
	MESSAGE_TRACE_SOCK = 7,
};

struct capture_header {
	__u8	type;			/* enum message_type */
	__u8	subtype;		/* observation point or drop reason */
	__u16	source;			/* endpoint whose program sends; 0: none */
	__u32	hash;
	__u32	len_orig;
	__u16	len_cap;
	__u8	version;
	__u8	ext_version;
};
_Static_assert(sizeof(struct capture_header) == 16, "monitor layout");

struct trace_notify {			/* version 1 */
	struct capture_header header;
	__u32	src_label;
	__u32	dst_label;
	__u16	dst_id;
	__u8	reason;			/* enum ct_status, or REASON_UNKNOWN */
	__u8	flags;			/* EVENT_FLAG_* */
	__u32	ifindex;
	union addr orig_ip;		/* source before translation, where it differs; else 0 */
};
_Static_assert(sizeof(struct trace_notify) == 48, "monitor layout, trace version 1");

struct drop_notify {			/* version 2 */
	struct capture_header header;
	__u32	src_label;
	__u32	dst_label;
	__u32	dst_id;
	__u16	line;
	__u8	file;			/* enum drop_file */
	__s8	ext_error;
	__u32	ifindex;
	__u8	flags;			/* EVENT_FLAG_* */
	__u8	pad[3];
};
_Static_assert(sizeof(struct drop_notify) == 40, "monitor layout, drop version 2");

struct policy_verdict_notify {		/* version 1, with cookie */
	struct capture_header header;
	__u32	remote_label;		/* identity of the other side */
	__s32	verdict;		/* 0, port of the proxy, or -DROP_* */
	__u16	dst_port;		/* ICMP: type */
	__u8	protocol;
	__u8	flags;			/* enum metric_direction, enum policy_match above VERDICT_MATCH_SHIFT, VERDICT_* */
	__u8	auth_type;
	__u8	pad[3];
	__u32	cookie;
	__u32	pad2;
};
_Static_assert(sizeof(struct policy_verdict_notify) == 40, "monitor layout, policy verdict with cookie");

#define VERDICT_IPV6		0x04
#define VERDICT_MATCH_SHIFT	3
#define VERDICT_AUDITED		0x40

enum policy_match {			/* what part of a policy decided */
	MATCH_NONE = 0,
	MATCH_L3_ONLY = 1,
	MATCH_L3_L4 = 2,
	MATCH_L4_ONLY = 3,
	MATCH_ALL = 4,
	MATCH_L3_PROTO = 5,
	MATCH_PROTO_ONLY = 6,
};

struct trace_sock_notify {
	__u8	type;			/* MESSAGE_TRACE_SOCK */
	__u8	xlate_point;		/* enum xlate_point */
	__u8	l4_proto;		/* 1 TCP, 2 UDP */
	__u8	flags;			/* EVENT_FLAG_IPV6 */
	__u16	dst_port;
	__u16	pad;
	__u64	sock_cookie;
	__u64	cgroup_id;
	union addr dst_ip;
};
_Static_assert(sizeof(struct trace_sock_notify) == 40, "monitor layout, socket trace");

enum xlate_point {
	PRE_XLATE_FWD = 1,		/* the service that a socket asks for */
	POST_XLATE_FWD = 2,		/* the backend it gets */
	PRE_XLATE_REV = 3,		/* the backend that an answer comes from */
	POST_XLATE_REV = 4,		/* the service that the process sees */
};

#define EVENT_FLAG_IPV6		0x01
#define EVENT_FLAG_VXLAN	0x04

enum observation_point {
	TO_ENDPOINT = 0,
	TO_PROXY = 1,
	TO_HOST = 2,
	TO_STACK = 3,
	TO_OVERLAY = 4,
	FROM_ENDPOINT = 5,
	FROM_PROXY = 6,
	FROM_HOST = 7,
	FROM_STACK = 8,
	FROM_OVERLAY = 9,
	FROM_NETWORK = 10,
	TO_NETWORK = 11,
};

enum ct_status {			/* also the reason of a trace event */
	CT_NEW = 0,
	CT_ESTABLISHED = 1,
	CT_REPLY = 2,
	CT_RELATED = 3,
	REASON_UNKNOWN = 5,		/* no lookup was made */
};

#endif
