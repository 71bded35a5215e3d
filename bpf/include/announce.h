/* Addresses that a node answers for on its own devices (load balancers' addresses, for the network beside it). */
#ifndef FLOWSCOPE_ANNOUNCE_H
#define FLOWSCOPE_ANNOUNCE_H

#include "neighbour.h"

/* As whom to answer; false: the address is not ours to answer for. */
static __always_inline bool
announced_as(const struct announce_key *key, struct interface_info *as)
{
	struct announce_value *found = bpf_map_lookup_elem(&cilium_l2_responder, key);

	if (!found)
		return false;
	__sync_fetch_and_add(&found->answers, 1);
	memcpy(as->host_mac, found->mac, ETH_ALEN);
	return true;
}

/* Returns TC_ACT_*; everything but questions for announced addresses is the stack's. */
static __always_inline int announce_arp(struct __sk_buff *skb, struct packet *pkt)
{
	struct announce_key key = { .ifindex = skb->ifindex, .family = FAMILY_IPV4 };
	struct interface_info as = {};
	struct arp_ipv4 arp;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) || arp.operation != bpf_htons(ARP_REQUEST))
		return TC_ACT_OK;
	key.address.ip4 = arp.target_ip;
	return announced_as(&key, &as) ? answer_arp(skb, pkt, &as) : TC_ACT_OK;
}

static __always_inline int announce_neighbour(struct __sk_buff *skb, struct packet *pkt)
{
	__u32 at = ETH_HLEN + sizeof(struct ipv6hdr) + offsetof(struct neighbour_advert, target);
	struct announce_key key = { .ifindex = skb->ifindex, .family = FAMILY_IPV6 };
	struct interface_info as = {};

	if (pkt->icmp_type != ICMP6_NEIGHBOUR_SOLICIT || bpf_skb_load_bytes(skb, at, &key.address, 16))
		return TC_ACT_OK;
	return announced_as(&key, &as) ? answer_solicitation(skb, pkt, &as) : TC_ACT_OK;
}

#endif
