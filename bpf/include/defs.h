/* Words that every program shares: types, identities, marks, and what travels beside a packet. */
#ifndef FLOWSCOPE_DEFS_H
#define FLOWSCOPE_DEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define EEXIST	17
#define memcpy	__builtin_memcpy
#define memset	__builtin_memset
#define memcmp	__builtin_memcmp
#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)

/* <linux/icmp.h> and <linux/icmpv6.h> pull in socket headers that the bpf target has no use for. */
#define ICMP_ECHO_REPLY		0
#define ICMP_UNREACHABLE	3
#define ICMP_PORT_UNREACHABLE	3	/* code of it */
#define ICMP_FRAGMENTATION_NEEDED	4	/* code of it */
#define ICMP_PROHIBITED		13	/* code of it */
#define ICMP_ECHO_REQUEST	8
#define ICMP_TIME_EXCEEDED	11
#define ICMP_PARAMETER		12
#define ICMP6_ERROR_FIRST	1
#define ICMP6_UNREACHABLE	1
#define ICMP6_PROHIBITED	1	/* code of it */
#define ICMP6_PORT_UNREACHABLE	4	/* code of it */
#define ICMP6_PACKET_TOO_BIG	2
#define ICMP6_ERROR_LAST	4
#define ICMP6_ECHO_REQUEST	128
#define ICMP6_ECHO_REPLY	129
#define ICMP6_MLD_QUERY		130
#define ICMP6_MLD_DONE		132
#define ICMP6_ROUTER_SOLICIT	133
#define ICMP6_NEIGHBOUR_SOLICIT	135
#define ICMP6_NEIGHBOUR_ADVERT	136
#define ICMP6_REDIRECT		137
#define ICMP6_MLD2_REPORT	143

enum family {
	FAMILY_NONE = 0,	/* not IP */
	FAMILY_IPV4 = 1,
	FAMILY_IPV6 = 2,
};

enum identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_KUBE_APISERVER = 7,	/* on a node */
	IDENTITY_WORLD_IPV4 = 9,
	IDENTITY_WORLD_IPV6 = 10,
};

/* A VNI has 24 bits; identities above are local to their node (prefixes, names) and mean nothing elsewhere. */
#define IDENTITY_CLUSTER_MAX	0xFFFFFF

/* Nodes that policies tell apart by their labels have identities of their own, which also mean nothing elsewhere. */
static __always_inline bool is_remote_node(__u32 identity)
{
	return identity == IDENTITY_REMOTE_NODE || identity == IDENTITY_KUBE_APISERVER || identity >> 24 == 2;
}

/* skb->mark between programs and the kernel's stack: kind in 0x0F00, an identity split around it. */
enum mark {
	MARK_KIND_MASK = 0x0F00,
	MARK_TO_PROXY = 0x0200,		/* port of the proxy above, as on the wire; 0: of an established connection */
	MARK_OVERLAY = 0x0400,
	MARK_FROM_L7LB = 0x0900,	/* a load balancer's connection to a backend, for a pod of this node */
	MARK_FROM_INGRESS_PROXY = 0x0A00,
	MARK_FROM_EGRESS_PROXY = 0x0B00,
	MARK_HOST = 0x0C00,
	MARK_IDENTITY = 0x0F00,
};

static __always_inline __u32 mark_of(__u32 kind, __u32 identity)
{
	return kind | (identity & 0xFFFF) << 16 | (identity >> 16 & 0xFF);
}

static __always_inline __u32 mark_identity(__u32 mark)
{
	return mark >> 16 | (mark & 0xFF) << 16;
}

/* skb->tc_index: what one program tells the next about a packet. Every program at a tc ingress hook clears it first: a
 * pod cannot set it.
 */
#define TC_INDEX_FROM_INGRESS_PROXY	0x01
#define TC_INDEX_FROM_EGRESS_PROXY	0x02
#define TC_INDEX_FROM_PROXY	(TC_INDEX_FROM_INGRESS_PROXY | TC_INDEX_FROM_EGRESS_PROXY)
#define TC_INDEX_SKIP_HOST	0x10	/* past the node's policy: not the node's packet, or an answer to it */
#define TC_INDEX_DELIVERED	0x20	/* set right before a redirect to a veth: to_container lets the packet pass */
#define TC_INDEX_TRANSLATED	0x40	/* a service was asked for by somebody who is no endpoint here */

/* skb->cb[]: what a caller hands to the endpoint's ingress program over the tail call. */
enum scratch {
	SCRATCH_SRC_IDENTITY,
	SCRATCH_ENDPOINT,	/* id of the destination in the low 16 bits, enum deliver above */
	SCRATCH_DST_IDENTITY,
	SCRATCH_IFINDEX,	/* of the destination's veth */
};

enum deliver {			/* how the ingress program hands the packet over */
	DELIVER_PEER,		/* caller is at tc ingress: straight into the pod's namespace */
	DELIVER_DEVICE,		/* caller is at tc egress, where the kernel allows only a plain redirect */
	DELIVER_PASS,		/* the kernel is delivering already (to_container) */
};

enum call {			/* index in cilium_calls */
	CALL_SERVICE,
	CALL_CONTAINER_TRANSLATED,
	CALL_HOST_TRANSLATED,
	CALL_NETDEV_TRANSLATED,
	CALL_REVERSE,
	CALL_HOST_ARRIVAL,
	CALL_HOST_DEPARTURE,
	CALLS,
};

enum error_call {		/* index in flowscope_errors */
	CALL_TOO_BIG,
	CALL_OUTSIDE_ERROR,
	CALL_DENIED,
	ERROR_CALLS = 8,	/* some room: a pinned map keeps its size when the programs change */
};

#define MONITOR_DEFAULT	128	/* bytes captured of a packet that is reported */
#define MONITOR_OVERLAY	192	/* the same when outer headers come first */
#define MONITOR_WHOLE	1500	/* DNS: the whole packet */

static __always_inline __u32 now_s(void)
{
	/* Coarse time is good for one tick, and costs a fraction of reading the clock source. */
	return bpf_ktime_get_coarse_ns() / 1000000000;
}

#endif
