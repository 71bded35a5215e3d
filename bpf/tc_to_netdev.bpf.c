/* tc egress of the node's own devices: what leaves for the network. Seen, not touched. (Masquerade, host policy.) */
#include "proxy.h"

/* Answers to a proxy that speaks in a pod's name are to find the proxy. */
static __always_inline int note_proxy(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				      __u32 *identity)
{
	struct ct_state ct = {};
	int ret = parse_packet(skb, pkt);

	if (ret)
		return ret;
	*identity = identity_from_stack(skb, pkt);
	return track_proxy(skb, pkt, config, *identity, proxy_of(skb->mark), &ct);
}

SEC("tc")
int to_netdev(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_EGRESS };
	__u32 identity = IDENTITY_UNKNOWN;
	__u8 flags = 0;
	int ret;

	if (pkt.family == FAMILY_NONE || !config)
		return TC_ACT_OK;
	switch (skb->mark & MARK_KIND_MASK) {
	case MARK_OVERLAY:
		flags = EVENT_FLAG_VXLAN;
		identity = mark_identity(skb->mark);
		break;
	case MARK_IDENTITY:
		identity = mark_identity(skb->mark);
		break;
	case MARK_FROM_INGRESS_PROXY:
	case MARK_FROM_EGRESS_PROXY:
		ret = note_proxy(skb, &pkt, config, &identity);
		if (ret)
			return drop_packet(skb, &pkt, ret, &drop);
		break;
	}
	trace_packet(skb, config, pkt.family, &(struct trace){
		.point = TO_NETWORK,
		.reason = REASON_UNKNOWN,
		.flags = flags,
		.source = config->host_endpoint_id,
		.src_identity = identity,
		.ifindex = skb->ifindex,
	});
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
