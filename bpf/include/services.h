/* Services: an address and port that stand for several backends, of which each connection gets one.
 *
 * The first packet of a connection chooses; an entry of connection tracking with CT_SERVICE keeps the choice. What is
 * translated on the way there is translated back by the index that the connection's own entry remembers.
 *
 * A proxy may begin to stand for a service, and cease to, while connections exist. Those that have a backend keep it,
 * and those that the proxy has taken stay with its sockets (tail_service.bpf.c): only opening packets go the new way.
 */
#ifndef FLOWSCOPE_SERVICES_H
#define FLOWSCOPE_SERVICES_H

#include "calls.h"
#include "conntrack.h"
#include "events.h"
#include "rewrite.h"

/* Source of what a pod sends to itself through a service: as it cannot have sent it, it answers to the network. */
#define LOOPBACK_IP4	bpf_htonl(0xA9FE2A01)	/* 169.254.42.1 */

static __always_inline union addr loopback_address(__u8 family)
{
	union addr address = {};

	if (family == FAMILY_IPV4) {
		address.ip4 = LOOPBACK_IP4;
	} else {			/* fd00:169:254:42::1 */
		address.ip6[0] = bpf_htonl(0xFD000169);
		address.ip6[1] = bpf_htonl(0x02540042);
		address.ip6[3] = bpf_htonl(1);
	}
	return address;
}

static __always_inline bool is_loopback_address(const union addr *address, __u8 family)
{
	if (family == FAMILY_IPV4)
		return address->ip4 == LOOPBACK_IP4;
	return address->ip6[0] == bpf_htonl(0xFD000169) && address->ip6[1] == bpf_htonl(0x02540042) &&
	       !address->ip6[2] && address->ip6[3] == bpf_htonl(1);
}

static __always_inline const struct lb_service *
service_slot(const struct packet *pkt, __be16 dport, __u8 protocol, __u8 scope, __u16 slot)
{
	if (pkt->family == FAMILY_IPV4) {
		struct lb4_key key = { .address = pkt->daddr.ip4, .dport = dport, .slot = slot, .protocol = protocol,
				       .scope = scope };

		return bpf_map_lookup_elem(&cilium_lb4_services_v2, &key);
	} else {
		struct lb6_key key = { .address = pkt->daddr, .dport = dport, .slot = slot, .protocol = protocol,
				       .scope = scope };

		return bpf_map_lookup_elem(&cilium_lb6_services_v2, &key);
	}
}

/* The service a packet is sent to, as clients outside see it; NULL: none. */
static __always_inline const struct lb_service *find_service(const struct packet *pkt)
{
	if (pkt->protocol != IPPROTO_TCP && pkt->protocol != IPPROTO_UDP && pkt->protocol != IPPROTO_SCTP)
		return NULL;
	return service_slot(pkt, pkt->dport, pkt->protocol, SCOPE_EXTERNAL, 0);
}

/* Is the destination an address that only services have? Asked about what would leave the cluster: nobody else has it,
 * and whoever offers something at it does so at other ports.
 */
static __always_inline bool is_service_address(const struct packet *pkt)
{
	return service_slot(pkt, 0, 0, SCOPE_EXTERNAL, 0);
}

/* An opening packet may be given to another backend; all others belong to a connection that has one. */
static __always_inline bool opens(const struct packet *pkt)
{
	return (pkt->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Has the packet's connection been given a backend? One that only now opens has not, whatever its ports were used for
 * before; but an opening packet that is repeated goes where it went.
 */
static __always_inline bool keeps_backend(void *map, const void *key, const struct packet *pkt)
{
	const struct ct_entry *entry = bpf_map_lookup_elem(map, key);

	if (!entry || entry->lifetime_s < now_s())
		return false;
	if (!opens(pkt) || !(entry->flags & (CT_ENTRY_SEEN_NON_SYN | CT_ENTRY_CLOSING)))
		return true;
	bpf_map_delete_elem(map, key);
	return false;
}

/* Not static, as parse_packet(). */
__noinline int has_backend(struct packet *pkt)
{
	if (!pkt || pkt->protocol != IPPROTO_TCP)
		return false;
	if (pkt->family == FAMILY_IPV4) {
		struct ct4_key key = { .daddr = pkt->daddr.ip4, .saddr = pkt->saddr.ip4, .dport = pkt->dport,
				       .sport = pkt->sport, .protocol = pkt->protocol, .flags = CT_SERVICE };

		return keeps_backend(ct_map(pkt->family, IPPROTO_TCP), &key, pkt);
	} else {
		struct ct6_key key = { .daddr = pkt->daddr, .saddr = pkt->saddr, .dport = pkt->dport,
				       .sport = pkt->sport, .protocol = pkt->protocol, .flags = CT_SERVICE };

		return keeps_backend(ct_map(pkt->family, IPPROTO_TCP), &key, pkt);
	}
}

/* Port of the proxy that stands for the service, as on the wire; 0: backends are chosen here. */
static __always_inline __be16 service_proxy_port(const struct lb_service *service)
{
	return service->flags2 & SERVICE2_L7 ? service->target : 0;
}

/* The same for a packet: it may belong to a connection that began before a proxy stood for the service. */
static __always_inline __be16 packet_proxy_port(struct packet *pkt, const struct lb_service *service)
{
	__be16 port = service_proxy_port(service);

	return port && !has_backend(pkt) ? port : 0;
}

/* May this client outside use the service? Returns 0 or -DROP_*. */
static __always_inline int service_admits(struct packet *pkt, const struct lb_service *service)
{
	struct source_range_key key = {
		.prefix_length = SOURCE_RANGE_STATIC_BITS + (pkt->family == FAMILY_IPV4 ? 32 : 128),
		.rev_nat_index_be = service->rev_nat_index_be,
		.address = pkt->saddr,
	};
	void *ranges = pkt->family == FAMILY_IPV4 ? (void *)&cilium_lb4_source_range : (void *)&cilium_lb6_source_range;

	if (!(service->flags & SERVICE_ROUTABLE))
		return DROP(pkt, DROP_IS_CLUSTER_IP, 0);
	if (service->flags & SERVICE_SOURCE_RANGES && !bpf_map_lookup_elem(ranges, &key))
		return DROP(pkt, DROP_SOURCE_RANGE, 0);
	return 0;
}

/* Is this an answer to a client that is no endpoint here, and knows the backend by a service's address? Not static, as
 * parse_packet().
 */
__noinline int answers_for_node(struct packet *pkt)
{
	const struct ct_entry *entry = pkt ? ct_peek(pkt, CT_INGRESS, true) : NULL;

	return entry && entry->rev_nat_index_be;
}

/* Let the reverse program translate such an answer and send it on. Returns only on failure. */
static __always_inline int translate_answer(struct __sk_buff *skb, struct packet *pkt, const struct trace *trace)
{
	skb->cb[REVERSE_SRC_IDENTITY] = trace->src_identity;
	skb->cb[REVERSE_SOURCE] = trace->source;
	skb->cb[REVERSE_REASON] = trace->reason;
	skb->cb[REVERSE_MONITOR] = trace->monitor;
	bpf_tail_call(skb, &cilium_calls, CALL_REVERSE);
	return DROP(pkt, DROP_MISSED_TAIL_CALL, CALL_REVERSE);
}

/* Let the service program choose a backend and come back to the caller's second half. Returns only on failure. */
static __always_inline int translate_service(struct __sk_buff *skb, struct packet *pkt, enum caller caller)
{
	skb->cb[SERVICE_CALLER] = caller;
	bpf_tail_call(skb, &cilium_calls, CALL_SERVICE);
	return DROP(pkt, DROP_MISSED_TAIL_CALL, CALL_SERVICE);
}

/* The address a client knows a service by. False: the service is gone. */
static __always_inline bool reverse_nat(__u16 index_be, __u8 family, union addr *address, __be16 *port)
{
	if (family == FAMILY_IPV4) {
		const struct lb4_reverse_nat *found = bpf_map_lookup_elem(&cilium_lb4_reverse_nat, &index_be);

		if (!found)
			return false;
		memset(address, 0, sizeof(*address));
		address->ip4 = found->address;
		*port = found->port;
	} else {
		const struct lb6_reverse_nat *found = bpf_map_lookup_elem(&cilium_lb6_reverse_nat, &index_be);

		if (!found)
			return false;
		memcpy(address, &found->address, sizeof(*address));
		*port = found->port;
	}
	return true;
}

/* A backend's answer gets the service's address as its source, and what a pod said to itself the pod's as its
 * destination. A service that is gone leaves its connections as they are. Returns 0 or -DROP_*.
 */
static __always_inline int translate_reply(struct __sk_buff *skb, struct packet *pkt, const struct ct_state *ct)
{
	union addr address, backend = pkt->saddr;
	__be16 port;
	int ret;

	if (!reverse_nat(ct->rev_nat_index_be, pkt->family, &address, &port))
		return 0;
	ret = rewrite_address(skb, pkt, SIDE_SOURCE, &address);
	if (!ret)
		ret = rewrite_port(skb, pkt, SIDE_SOURCE, port);
	if (!ret && ct->flags & CT_ENTRY_LOOPBACK)
		ret = rewrite_address(skb, pkt, SIDE_DESTINATION, &backend);
	return ret;
}

/* Index of the service through which the connection inside an ICMP error was opened; 0: none. */
static __always_inline __be16 inner_service(const struct packet *pkt, const struct inner *inner)
{
	const struct ct_entry *entry;

	if (pkt->family == FAMILY_IPV4) {
		struct ct4_key key = { .daddr = pkt->inner_daddr.ip4, .saddr = pkt->inner_saddr.ip4,
				       .dport = inner->dport, .sport = inner->sport, .protocol = inner->protocol,
				       .flags = CT_OUT };

		entry = bpf_map_lookup_elem(ct_map(pkt->family, inner->protocol), &key);
	} else {
		struct ct6_key key = { .daddr = pkt->inner_daddr, .saddr = pkt->inner_saddr, .dport = inner->dport,
				       .sport = inner->sport, .protocol = inner->protocol, .flags = CT_OUT };

		entry = bpf_map_lookup_elem(ct_map(pkt->family, inner->protocol), &key);
	}
	return entry ? entry->rev_nat_index_be : 0;
}

/* An ICMP error about a packet to a backend is about the service, to whoever sent it. Returns 0 or -DROP_*. */
static __always_inline int
translate_error_about(struct __sk_buff *skb, struct packet *pkt, const struct inner *inner, __be16 index_be)
{
	union addr address;
	__be16 port;
	int ret;

	if (!index_be || !reverse_nat(index_be, pkt->family, &address, &port))
		return 0;
	/* The backend itself complains, or a router on the way. */
	if (same_address(&pkt->saddr, &pkt->inner_daddr)) {
		ret = rewrite_address(skb, pkt, SIDE_SOURCE, &address);
		if (ret)
			return ret;
	}
	return rewrite_inner(skb, pkt, inner, SIDE_DESTINATION, &address, port);
}

/* The same for one that connection tracking knows. Not static, as parse_packet(). Returns 0 or -DROP_*. */
__noinline int translate_error(struct __sk_buff *skb, struct packet *pkt)
{
	struct inner inner = {};

	if (!pkt)
		return -DROP_INVALID_PACKET;
	if (!load_inner(skb, pkt, &inner))
		return 0;
	return translate_error_about(skb, pkt, &inner, inner_service(pkt, &inner));
}

#endif
