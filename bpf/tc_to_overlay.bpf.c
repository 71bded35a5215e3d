/* tc egress of the vxlan device: packets about to be encapsulated.
 *
 * Leaves the sender's identity in the mark, which the outer packet keeps, so that to_netdev can tell tunnel traffic.
 * A packet without a tunnel key was routed here by mistake; the device would lose it without a word.
 */
#include "events.h"

/* The device announces itself (multicast listeners, routers) when it comes up; nobody waits for that. */
static __always_inline bool is_link_multicast(struct __sk_buff *skb, __u8 family)
{
	__u8 first = 0;

	if (family != FAMILY_IPV6)
		return false;
	bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), &first, 1);
	return first == 0xFF;
}

SEC("tc")
int to_overlay(struct __sk_buff *skb)
{
	struct packet pkt = { .family = packet_family(skb) };
	struct bpf_tunnel_key key = {};
	long err;

	err = bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0);
	if (err)
		err = bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6);
	if (err && is_link_multicast(skb, pkt.family))
		return TC_ACT_SHOT;
	if (err)
		return drop_packet(skb, &pkt, DROP(&pkt, DROP_NO_TUNNEL_ENDPOINT, err),
				   &(struct drop){ .direction = METRIC_EGRESS });
	skb->mark = mark_of(MARK_OVERLAY, key.tunnel_id);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
