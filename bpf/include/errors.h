/* Packets that need an ICMP error, and ICMP errors that need more than their addresses changed: who finds one jumps to
 * tail_errors.bpf.c, so that all other packets pay for a comparison and nothing more.
 */
#ifndef FLOWSCOPE_ERRORS_H
#define FLOWSCOPE_ERRORS_H

#include "calls.h"
#include "events.h"
#include "reject.h"

#define IP4_DONT_FRAGMENT	0x4000

/* Bytes of one segment's headers and payload, as the device will cut them. */
static __always_inline __u32 largest_segment(struct __sk_buff *skb, const struct packet *pkt)
{
	__u32 head = pkt->l4_offset - ETH_HLEN + 8;
	__u8 words;

	if (!skb->gso_size)
		return skb->len - ETH_HLEN;
	if (pkt->protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, pkt->l4_offset + 12, &words, 1))
			return 0;
		head += (words >> 4) * 4 - 8;
	}
	return head + skb->gso_size;
}

/* Is the sender to hear that this packet does not fit into the tunnel? Else, if it does not, it is cut outside. */
static __always_inline bool
is_too_big_for_tunnel(struct __sk_buff *skb, const struct packet *pkt, const struct node_config *config)
{
	__be16 fragment;

	if (likely(skb->len <= ETH_HLEN + (__u32)config->tunnel_mtu) || !config->tunnel_mtu)
		return false;
	if (largest_segment(skb, pkt) <= config->tunnel_mtu || !can_quote(pkt))
		return false;
	/* Routers cut only what may be cut, and of IPv6 nothing. */
	return pkt->family != FAMILY_IPV4 ||
	       (!bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, frag_off), &fragment, sizeof(fragment)) &&
		fragment & bpf_htons(IP4_DONT_FRAGMENT));
}

/* End what a pod sends, and if its policy is why and the node is to say so, say so. `service` is the index of the one
 * that the pod has asked for. Returns TC_ACT_SHOT, or does not.
 */
static __always_inline int refuse(struct __sk_buff *skb, const struct packet *pkt, const struct node_config *config,
				  int ret, const struct drop *drop, __u32 service)
{
	drop_packet(skb, pkt, ret, drop);
	if (config && config->flags & NODE_TELL_DENIED && (ret == -DROP_POLICY_DENIED || ret == -DROP_POLICY_DENY)) {
		skb->cb[ERROR_SERVICE] = service;
		bpf_tail_call(skb, &flowscope_errors, CALL_DENIED);
	}
	return TC_ACT_SHOT;
}

/* Tell the sender. Returns only on failure. */
static __always_inline int refuse_too_big(struct __sk_buff *skb, struct packet *pkt, __u16 source, __u32 src_identity,
					  __u32 dst_identity)
{
	skb->cb[ERROR_SOURCE] = source;
	skb->cb[ERROR_SRC_IDENTITY] = src_identity;
	skb->cb[ERROR_DST_IDENTITY] = dst_identity;
	bpf_tail_call(skb, &flowscope_errors, CALL_TOO_BIG);
	return DROP(pkt, DROP_MISSED_TAIL_CALL, CALL_TOO_BIG);
}

#endif
