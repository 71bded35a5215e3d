/* tc ingress of cilium_host: what our own programs send to the node. The stack takes it; packets for a proxy, which
 * come from egress hooks, get the proxy's socket here first.
 */
#include "proxy.h"

SEC("tc")
int host_ingress(struct __sk_buff *skb)
{
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_INGRESS };
	int ret;

	skb->tc_index = 0;
	if ((skb->mark & MARK_KIND_MASK) != MARK_TO_PROXY)
		return TC_ACT_OK;
	ret = parse_packet(skb, &pkt);
	/* The stack finds the socket that an error is about. */
	if (!ret && pkt.icmp_error)
		return TC_ACT_OK;
	if (!ret)
		ret = assign_to_proxy(skb, &pkt, skb->mark >> 16, AT_INGRESS);
	return ret ? drop_packet(skb, &pkt, ret, &drop) : TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
