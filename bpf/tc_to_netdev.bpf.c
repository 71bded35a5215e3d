/* tc egress of the node's own devices: what leaves for the network. Seen, not touched. (Masquerade, host policy.) */
#include "events.h"

SEC("tc")
int to_netdev(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	__u8 family = packet_family(skb), flags = 0;
	__u32 identity = IDENTITY_UNKNOWN;

	if (family == FAMILY_NONE || !config)
		return TC_ACT_OK;
	switch (skb->mark & MARK_KIND_MASK) {
	case MARK_OVERLAY:
		flags = EVENT_FLAG_VXLAN;
		identity = mark_identity(skb->mark);
		break;
	case MARK_IDENTITY:
		identity = mark_identity(skb->mark);
		break;
	}
	trace_packet(skb, config, family, &(struct trace){
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
