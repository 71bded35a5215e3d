/* tc ingress of the node's own devices: what arrives from the network.
 *
 * Pods' addresses may be reached directly (a route to this node): such packets are delivered with the identity that
 * the ipcache has for their source. All else, tunnel packets too, is the stack's. (Services, host policy.)
 */
#include "forward.h"

static __always_inline __u8 tunnel_flag(const struct packet *pkt, const struct node_config *config)
{
	bool tunnel = pkt->protocol == IPPROTO_UDP && config->tunnel_port_be && pkt->dport == config->tunnel_port_be;

	return tunnel ? EVENT_FLAG_VXLAN : 0;
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_INGRESS };
	const struct endpoint_info *local;
	int ret;

	if (pkt.family == FAMILY_NONE || !config)
		return TC_ACT_OK;
	skb->mark = 0;
	skb->tc_index = 0;
	ret = parse_packet(skb, &pkt);
	trace_packet(skb, config, pkt.family, &(struct trace){
		.point = FROM_NETWORK,
		.reason = REASON_UNKNOWN,
		.flags = tunnel_flag(&pkt, config),
		.source = config->host_endpoint_id,
		.ifindex = skb->ifindex,
		.monitor = MONITOR_DEFAULT,
	});
	/* What cannot be read here is not for a pod; the stack may know better. */
	if (ret)
		return TC_ACT_OK;
	local = find_endpoint(&pkt.daddr, pkt.family);
	if (!local || local->flags & ENDPOINT_HOST)
		return TC_ACT_OK;
	drop.src_identity = identity_of(&pkt.saddr, pkt.family);
	drop.dst_identity = local->identity;
	drop.dst_id = local->endpoint_id;
	ret = deliver(skb, &pkt, local, drop.src_identity, DELIVER_PEER);
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
