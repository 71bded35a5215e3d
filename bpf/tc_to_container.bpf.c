/* tc egress of the host side of a pod's veth: packets that the kernel itself routes to the pod.
 *
 * What our own programs redirect here has passed the endpoint's ingress step already and says so in tc_index. The
 * rest (nodes that route to each veth instead of to cilium_host) takes that step now.
 */
#include "events.h"
#include "proxy.h"

SEC("tc")
int to_container(struct __sk_buff *skb)
{
	struct packet pkt = { .family = packet_family(skb) };
	const struct interface_info *own;
	struct drop drop = { .direction = METRIC_INGRESS };
	__u32 ifindex = skb->ifindex;
	int ret;

	if (skb->tc_index & TC_INDEX_DELIVERED) {
		skb->tc_index = 0;
		return TC_ACT_OK;
	}
	/* The kernel resolves the pod's MAC. */
	if (pkt.family == FAMILY_NONE)
		return TC_ACT_OK;
	own = bpf_map_lookup_elem(&flowscope_interfaces, &ifindex);
	if (own) {
		drop.source = drop.dst_id = own->endpoint_id;
		drop.dst_identity = own->identity;
	}
	ret = parse_packet(skb, &pkt);
	if (ret)
		return drop_packet(skb, &pkt, ret, &drop);
	if (is_link_chatter(&pkt))
		return TC_ACT_OK;
	if (!own)
		return drop_packet(skb, &pkt, DROP(&pkt, DROP_ENDPOINT_NOT_READY, 0), &drop);

	drop.src_identity = identity_from_stack(skb, &pkt);
	skb->tc_index = proxy_of(skb->mark);
	skb->mark = 0;
	skb->cb[SCRATCH_SRC_IDENTITY] = drop.src_identity;
	skb->cb[SCRATCH_ENDPOINT] = own->endpoint_id | DELIVER_PASS << 16;
	skb->cb[SCRATCH_DST_IDENTITY] = own->identity;
	skb->cb[SCRATCH_IFINDEX] = ifindex;
	bpf_tail_call(skb, &cilium_call_policy, own->endpoint_id);
	return drop_packet(skb, &pkt, DROP(&pkt, DROP_ENDPOINT_NOT_READY, 0), &drop);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
