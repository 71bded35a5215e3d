/* tc ingress of cilium_host: what our own programs send to the node. The stack takes it, if the node's policy lets it;
 * packets for a proxy, which come from egress hooks, get the proxy's socket here first.
 */
#include "host_policy.h"
#include "proxy.h"

SEC("tc")
int host_ingress(struct __sk_buff *skb)
{
	struct packet pkt = { .family = packet_family(skb) };
	const struct node_config *config = node_config();
	struct drop drop = { .direction = METRIC_INGRESS };
	bool judged = skb->tc_index & TC_INDEX_SKIP_HOST;
	__u32 kind = skb->mark & MARK_KIND_MASK;
	int ret;

	skb->tc_index = 0;
	if (kind == MARK_TO_PROXY) {
		ret = parse_packet(skb, &pkt);
		/* The stack finds the socket that an error is about. */
		if (!ret && pkt.icmp_error)
			return TC_ACT_OK;
		if (!ret)
			ret = assign_to_proxy(skb, &pkt, skb->mark >> 16, AT_INGRESS);
	} else {
		if (judged || !config || pkt.family == FAMILY_NONE)
			return TC_ACT_OK;
		ret = host_receive(skb, &pkt, config, kind == MARK_IDENTITY ? mark_identity(skb->mark) : 0);
	}
	return ret ? drop_packet(skb, &pkt, ret, &drop) : TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
