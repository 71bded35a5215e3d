/* To a proxy of this node, and from one.
 *
 * A proxy's sockets are transparent: the listener takes connections to anybody's address, and connections to backends
 * have the client's. So a packet is handed to a socket, not to an address: bpf_sk_assign() at a tc ingress hook, and a
 * mark that the node's routes take as "for this node" (mesh/devices.py). At an egress hook no socket can be assigned;
 * the packet takes the way through cilium_host's ingress, where host_ingress does it.
 *
 * All sockets of proxies carry a mark (SO_MARK): what they send is known by it, and a socket without one is not taken
 * for a proxy's.
 */
#ifndef FLOWSCOPE_PROXY_H
#define FLOWSCOPE_PROXY_H

#include "conntrack.h"
#include "forward.h"

enum hook {
	AT_INGRESS,
	AT_EGRESS,
};

#define LOOPBACK_BE	bpf_htonl(0x7F000001)

/* TC_INDEX_FROM_* of a packet that the node's stack sends with this mark. */
static __always_inline __u16 proxy_of(__u32 mark)
{
	switch (mark & MARK_KIND_MASK) {
	case MARK_FROM_INGRESS_PROXY:
		return TC_INDEX_FROM_INGRESS_PROXY;
	case MARK_FROM_EGRESS_PROXY:
	case MARK_FROM_L7LB:
		return TC_INDEX_FROM_EGRESS_PROXY;
	}
	return 0;
}

static __always_inline struct bpf_sock *
find_socket(struct __sk_buff *skb, const struct packet *pkt, const union addr *daddr, __be16 dport)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size;

	if (pkt->family == FAMILY_IPV4) {
		tuple.ipv4.saddr = pkt->saddr.ip4;
		tuple.ipv4.daddr = daddr->ip4;
		tuple.ipv4.sport = pkt->sport;
		tuple.ipv4.dport = dport;
		size = sizeof(tuple.ipv4);
	} else {
		memcpy(tuple.ipv6.saddr, &pkt->saddr, 16);
		memcpy(tuple.ipv6.daddr, daddr, 16);
		tuple.ipv6.sport = pkt->sport;
		tuple.ipv6.dport = dport;
		size = sizeof(tuple.ipv6);
	}
	if (pkt->protocol == IPPROTO_TCP)
		return bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (pkt->protocol == IPPROTO_UDP)
		return bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	return NULL;
}

static __always_inline bool is_bound_to(const struct bpf_sock *sk, const union addr *ip, __u8 family)
{
	/* Read before it is known which one counts: merged by the compiler, the reads would be pointer arithmetic on a
	 * socket, which the verifier forbids.
	 */
	__u32 ip4 = sk->src_ip4, first = sk->src_ip6[0];

	asm volatile("" : "+r"(ip4), "+r"(first));
	if (family == FAMILY_IPV4)
		return ip4 == ip->ip4;
	return first == ip->ip6[0] && sk->src_ip6[1] == ip->ip6[1] && sk->src_ip6[2] == ip->ip6[2] &&
	       sk->src_ip6[3] == ip->ip6[3];
}

/* The socket that already has this packet's connection. The caller releases it. */
static __always_inline struct bpf_sock *find_connection(struct __sk_buff *skb, const struct packet *pkt)
{
	struct bpf_sock *sk = find_socket(skb, pkt, &pkt->daddr, pkt->dport), *full;

	if (!sk)
		return NULL;
	full = bpf_sk_fullsock(sk);
	/* Half open or lingering: these have no mark to look at, and exist only by what was redirected before. */
	if (!full)
		return sk;
	/* Listeners, and sockets of the node's own, may wait at the very address and port. */
	if (full->state != BPF_TCP_LISTEN && proxy_of(full->mark) && is_bound_to(full, &pkt->daddr, pkt->family))
		return sk;
	bpf_sk_release(sk);
	return NULL;
}

static __always_inline struct bpf_sock *
find_listener(struct __sk_buff *skb, const struct packet *pkt, __be16 proxy_port_be)
{
	union addr loopback = {};

	if (pkt->family == FAMILY_IPV4)
		loopback.ip4 = LOOPBACK_BE;
	else
		loopback.ip6[3] = bpf_htonl(1);
	return find_socket(skb, pkt, &loopback, proxy_port_be);
}

static __always_inline bool has_proxy_socket(struct __sk_buff *skb, const struct packet *pkt)
{
	struct bpf_sock *sk = find_connection(skb, pkt);

	if (sk)
		bpf_sk_release(sk);
	return sk;
}

/* Give the packet to the proxy's socket; at an egress hook only see whether there is one. Returns 0 or -DROP_*. */
static __always_inline int
assign_to_proxy(struct __sk_buff *skb, struct packet *pkt, __be16 proxy_port_be, enum hook hook)
{
	struct bpf_sock *sk = NULL;
	long err = 0;

	/* The socket that asks for datagrams is the one that gets them; only answers come to another one. */
	if (pkt->protocol == IPPROTO_TCP || !proxy_port_be)
		sk = find_connection(skb, pkt);
	if (!sk && !proxy_port_be)
		return DROP(pkt, DROP_SOCKET_NOT_FOUND, 0);
	if (!sk)
		sk = find_listener(skb, pkt, proxy_port_be);
	if (!sk)
		return DROP(pkt, DROP_PROXY_NOT_SUPPORTED, 0);
	if (hook == AT_INGRESS)
		err = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return err ? DROP(pkt, DROP_SOCKET_ASSIGN_FAILED, err) : 0;
}

/* Send the packet to the proxy at port trace->dst_id, 0: to the one that has its connection, and tell `trace`, whose
 * point is set here. Returns TC_ACT_* or -DROP_*: what a proxy has to judge does not pass unjudged.
 */
static __always_inline int redirect_to_proxy(struct __sk_buff *skb, struct packet *pkt,
					     const struct node_config *config, enum hook hook, struct trace *trace)
{
	__be16 port_be = bpf_htons(trace->dst_id);
	int ret;

	if (hook == AT_EGRESS && !config->host_ifindex)
		return DROP(pkt, DROP_PROXY_NOT_SUPPORTED, 0);
	ret = assign_to_proxy(skb, pkt, port_be, hook);
	if (ret)
		return ret;
	trace->point = TO_PROXY;
	trace_packet(skb, config, pkt->family, trace);
	skb->mark = MARK_TO_PROXY | (__u32)port_be << 16;
	if (hook == AT_EGRESS)
		return to_host(skb, pkt, config);
	bpf_skb_change_type(skb, 0 /* PACKET_HOST */);
	return TC_ACT_OK;
}

/* A proxy sends: to a client, whose connection is known here when a pod or a service of this node is the server; or to
 * a backend in the name of a pod of this node, and then answers are to find the proxy. `proxy` is its TC_INDEX_FROM_*.
 * Fills `ct`; returns 0 or -DROP_*.
 */
static __always_inline int track_proxy(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				       __u32 src_identity, __u16 proxy, struct ct_state *ct)
{
	const struct endpoint_info *speaker;
	int ret;

	ret = ct_lookup(skb, pkt, CT_EGRESS, config, ct);
	/* The server's own proxy has the server's entry; toward the server, the server's program makes one. */
	if (ret || proxy != TC_INDEX_FROM_EGRESS_PROXY || !ct_is_due(ct, CT_ENTRY_PROXY))
		return ret;
	speaker = find_endpoint(&pkt->saddr, pkt->family);
	if (!speaker)
		return 0;
	/* With the node's address, which has a socket: no more is to be said than that the answer may come. */
	if (speaker->flags & ENDPOINT_HOST)
		return config->flags & NODE_HOST_POLICY && ct->status == CT_NEW ?
			       ct_create(skb, pkt, CT_EGRESS, src_identity, 0) : 0;
	/* A client of this node has asked: this is the answer. */
	if (ct_is_reply(pkt, CT_INGRESS))
		return 0;
	return ct_create(skb, pkt, CT_EGRESS, src_identity, CT_ENTRY_PROXY);
}

#endif
