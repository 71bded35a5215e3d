/* Who has an address: endpoints of this node by address, everybody else by longest prefix. */
#ifndef FLOWSCOPE_LOOKUP_H
#define FLOWSCOPE_LOOKUP_H

#include "packet.h"

static __always_inline const struct endpoint_info *find_endpoint(const union addr *ip, __u8 family)
{
	struct endpoint_key key = { .ip = *ip, .family = family };

	return bpf_map_lookup_elem(&cilium_lxc, &key);
}

static __always_inline const struct ipcache_info *find_ipcache(const union addr *ip, __u8 family)
{
	struct ipcache_key key = {
		.prefix_length = IPCACHE_STATIC_BITS + (family == FAMILY_IPV4 ? 32 : 128),
		.family = family,
		.ip = *ip,
	};

	return bpf_map_lookup_elem(&cilium_ipcache_v2, &key);
}

/* Identity of an address that is no endpoint here. Who is not known is the world. */
static __always_inline __u32 identity_of(const union addr *ip, __u8 family)
{
	const struct ipcache_info *info = find_ipcache(ip, family);

	return info && info->identity ? info->identity : IDENTITY_WORLD;
}

/* The world has an identity in each family once a policy tells them apart; the ipcache knows. */
static __always_inline __u32 world_of(__u8 family)
{
	struct ipcache_key key = { .prefix_length = IPCACHE_STATIC_BITS, .family = family };
	const struct ipcache_info *info = bpf_map_lookup_elem(&cilium_ipcache_v2, &key);

	return info && info->identity ? info->identity : IDENTITY_WORLD;
}

/* Identity of another node: its own where policies tell nodes apart, else the one that they share. */
static __always_inline __u32 node_of(const union addr *ip, __u8 family)
{
	__u32 identity = identity_of(ip, family);

	return is_remote_node(identity) ? identity : IDENTITY_REMOTE_NODE;
}

/* Identity of a packet that the node's stack sends: from the mark if somebody left one, else from its source. */
static __always_inline __u32 identity_from_stack(const struct __sk_buff *skb, const struct packet *pkt)
{
	switch (skb->mark & MARK_KIND_MASK) {
	case MARK_IDENTITY:
		return mark_identity(skb->mark);
	case MARK_FROM_INGRESS_PROXY:
	case MARK_FROM_EGRESS_PROXY:
		/* A proxy that speaks with its client's address need not know who that is. */
		if (mark_identity(skb->mark))
			return mark_identity(skb->mark);
		break;
	case MARK_HOST:
		return IDENTITY_HOST;
	}
	return identity_of(&pkt->saddr, pkt->family);
}

#endif
