/* Where a packet goes from here: a pod of this node, another node through the tunnel, or the node itself. */
#ifndef FLOWSCOPE_FORWARD_H
#define FLOWSCOPE_FORWARD_H

#include "events.h"
#include "lookup.h"

/* One hop further: TTL or hop limit minus one, and the MACs of the last link. Returns 0 or -DROP_*. */
static __always_inline int
next_hop(struct __sk_buff *skb, struct packet *pkt, const __u8 *source_mac, const __u8 *destination_mac)
{
	struct ethhdr *eth;
	void *end;

	if (pkt->ttl <= 1)
		return DROP(pkt, DROP_TTL_EXCEEDED, 0);
	if (!pull(skb, ETH_HLEN + sizeof(struct iphdr)))
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	eth = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (pkt->family == FAMILY_IPV4) {
		struct iphdr *ip = (void *)(eth + 1);
		__u32 sum;

		if ((void *)(ip + 1) > end)
			return DROP(pkt, DROP_INVALID_PACKET, 0);
		/* RFC 1141: the checksum grows by what the TTL's 16-bit word shrinks. */
		sum = ip->check + bpf_htons(0x0100);
		ip->check = sum + (sum >= 0xFFFF);
		ip->ttl--;
	} else {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return DROP(pkt, DROP_INVALID_PACKET, 0);
		ip->hop_limit--;
	}
	memcpy(eth->h_source, source_mac, ETH_ALEN);
	memcpy(eth->h_dest, destination_mac, ETH_ALEN);
	return 0;
}

/* Ask the node's routes about a packet that has just come in. Returns as bpf_fib_lookup(). */
static __always_inline long
find_route(struct __sk_buff *skb, const struct packet *pkt, struct bpf_fib_lookup *fib, __u32 flags)
{
	memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = pkt->protocol;
	fib->ifindex = skb->ifindex;
	if (pkt->family == FAMILY_IPV4) {
		fib->family = 2 /* AF_INET */;
		fib->ipv4_src = pkt->saddr.ip4;
		fib->ipv4_dst = pkt->daddr.ip4;
	} else {
		fib->family = 10 /* AF_INET6 */;
		memcpy(fib->ipv6_src, &pkt->saddr, 16);
		memcpy(fib->ipv6_dst, &pkt->daddr, 16);
	}
	return bpf_fib_lookup(skb, fib, sizeof(*fib), flags);
}

/* Will the stack have to throw this packet away, because it knows no way or a route forbids it? Not static, as
 * parse_packet(). Returns 0: it will not, or BPF_FIB_LKUP_RET_*.
 */
__noinline int why_unroutable(struct __sk_buff *skb, struct packet *pkt)
{
	struct bpf_fib_lookup fib;
	long result;

	if (!pkt)
		return 0;
	result = find_route(skb, pkt, &fib, 0);
	/* An address of the node is not forwarded to, either; but the devices' own routes lead there. */
	if (result == BPF_FIB_LKUP_RET_NOT_FWDED)
		result = find_route(skb, pkt, &fib, BPF_FIB_LOOKUP_DIRECT);
	return result >= BPF_FIB_LKUP_RET_BLACKHOLE && result <= BPF_FIB_LKUP_RET_NOT_FWDED ? result : 0;
}

/* Out by the node's routes, without the stack's say: its source may be an address that the stack takes for its own.
 * Returns TC_ACT_REDIRECT or -DROP_*.
 */
static __always_inline int forward_by_route(struct __sk_buff *skb, struct packet *pkt)
{
	__u8 no_mac[ETH_ALEN] = {};	/* the neighbour's follows */
	struct bpf_redir_neigh next = {};
	struct bpf_fib_lookup fib;
	long result = find_route(skb, pkt, &fib, 0);
	int ret;

	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return DROP(pkt, DROP_FIB_LOOKUP_FAILED, result);
	ret = next_hop(skb, pkt, no_mac, no_mac);
	if (ret)
		return ret;
	/* The lookup leaves the gateway where the destination stood. */
	next.nh_family = fib.family;
	memcpy(next.ipv6_nh, fib.ipv6_dst, 16);
	/* It may have the node's address as its source, and is none of the node's. */
	skb->tc_index |= TC_INDEX_SKIP_HOST;
	return bpf_redirect_neigh(fib.ifindex, &next, sizeof(next), 0);
}

/* Hand the packet to a local endpoint's ingress program, which decides and delivers. Returns only on failure. */
static __always_inline int
deliver(struct __sk_buff *skb, struct packet *pkt, const struct endpoint_info *endpoint, __u32 src_identity,
	enum deliver how)
{
	__u32 ifindex = endpoint->ifindex, identity = endpoint->identity;
	__u16 endpoint_id = endpoint->endpoint_id;
	int ret;

	ret = next_hop(skb, pkt, endpoint->host_mac, endpoint->mac);
	if (ret)
		return ret;
	skb->cb[SCRATCH_SRC_IDENTITY] = src_identity;
	skb->cb[SCRATCH_ENDPOINT] = endpoint_id | how << 16;
	skb->cb[SCRATCH_DST_IDENTITY] = identity;
	skb->cb[SCRATCH_IFINDEX] = ifindex;
	bpf_tail_call(skb, &cilium_call_policy, endpoint_id);
	return DROP(pkt, DROP_ENDPOINT_NOT_READY, 0);
}

/* The identity as it may appear in a VNI or a mark, which have 24 bits. The receiver would refuse "host": here it is a node, seen from elsewhere. */
static __always_inline __u32 identity_for_tunnel(__u32 identity)
{
	if (identity == IDENTITY_HOST)
		return IDENTITY_REMOTE_NODE;
	if (is_remote_node(identity))
		return IDENTITY_REMOTE_NODE;
	/* Each node tells the families of the world apart by itself, or not at all. */
	if (identity == IDENTITY_WORLD_IPV4 || identity == IDENTITY_WORLD_IPV6)
		return IDENTITY_WORLD;
	return identity > IDENTITY_CLUSTER_MAX ? IDENTITY_WORLD : identity;
}

static __always_inline bool has_tunnel(const struct ipcache_info *info)
{
	return info && (info->flags & (IPCACHE_HAS_TUNNEL | IPCACHE_SKIP_TUNNEL)) == IPCACHE_HAS_TUNNEL;
}

/* Address the packet to another node; the vxlan device does the rest. Returns TC_ACT_REDIRECT or -DROP_*. */
static __always_inline int encapsulate(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				       const struct ipcache_info *info, __u32 src_identity)
{
	struct bpf_tunnel_key key = { .tunnel_id = identity_for_tunnel(src_identity), .tunnel_ttl = 64 };
	__u32 flags = BPF_F_ZERO_CSUM_TX;
	long err;

	if (!config->overlay_ifindex)
		return DROP(pkt, DROP_NO_TUNNEL_ENDPOINT, 0);
	if (info->flags & IPCACHE_TUNNEL_IPV6) {
		memcpy(key.remote_ipv6, &info->tunnel_endpoint, 16);
		flags = BPF_F_TUNINFO_IPV6;
	} else {
		key.remote_ipv4 = bpf_ntohl(info->tunnel_endpoint.ip4);
	}
	err = bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags);
	if (err)
		return DROP(pkt, DROP_WRITE_ERROR, err);
	return bpf_redirect(config->overlay_ifindex, 0);
}

/* Let the node's stack have the packet, on cilium_host where it exists. Called at tc ingress.
 * Returns TC_ACT_* or -DROP_*.
 */
static __always_inline int to_host(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config)
{
	struct ethhdr *eth;

	if (!config->host_ifindex) {
		bpf_skb_change_type(skb, 0 /* PACKET_HOST */);
		return TC_ACT_OK;
	}
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	memcpy(eth->h_dest, config->host_mac, ETH_ALEN);
	return bpf_redirect(config->host_ifindex, BPF_F_INGRESS);
}

/* An answer to the node's own stack, as if cilium_host had got it from its own address. Called at tc egress of
 * cilium_host. Returns TC_ACT_*.
 */
static __always_inline int answer_host(struct __sk_buff *skb, const struct node_config *config)
{
	__u8 macs[2 * ETH_ALEN];

	memcpy(macs, config->host_mac, ETH_ALEN);
	memcpy(macs + ETH_ALEN, config->host_mac, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(config->host_ifindex, BPF_F_INGRESS);
}

#endif
