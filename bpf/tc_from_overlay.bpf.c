/* tc ingress of the vxlan device: packets of other nodes, decapsulated; the VNI says who sent them. */
#include "forward.h"
#include "services.h"

static __always_inline int tunnel_identity(struct __sk_buff *skb, struct packet *pkt, __u32 *identity)
{
	struct bpf_tunnel_key key = {};
	long err;

	/* The kernel tells the family of the tunnel only by refusing the other one. */
	err = bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0);
	if (err)
		err = bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6);
	if (err)
		return DROP(pkt, DROP_NO_TUNNEL_KEY, err);
	*identity = key.tunnel_id;
	/* Nobody but this node's own stack is "host" here: senders write remote-node. */
	if (key.tunnel_id == IDENTITY_HOST)
		return DROP(pkt, DROP_INVALID_IDENTITY, 0);
	if (key.tunnel_id == IDENTITY_WORLD)
		*identity = world_of(pkt->family);
	return 0;
}

static __always_inline int
handle(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config, __u32 *src_identity)
{
	const struct endpoint_info *local;
	int ret;

	if (pkt->family == FAMILY_NONE)
		return DROP(pkt, DROP_UNSUPPORTED_L3, 0);
	ret = parse_packet(skb, pkt);
	if (ret)
		return ret;
	if (*src_identity == IDENTITY_REMOTE_NODE)
		*src_identity = node_of(&pkt->saddr, pkt->family);
	/* The sender could not know the MAC of this device, so the kernel took the frame for somebody else's. */
	bpf_skb_change_type(skb, 0 /* PACKET_HOST */);
	local = find_endpoint(&pkt->daddr, pkt->family);
	if (local && !(local->flags & ENDPOINT_HOST))
		return deliver(skb, pkt, local, *src_identity, DELIVER_PEER);
	if (!local)
		return TC_ACT_OK;
	/* For the node, or an answer to somebody for whom the node asked. */
	return translate_answer(skb, pkt, &(struct trace){
		.reason = REASON_UNKNOWN,
		.source = config->host_endpoint_id,
		.src_identity = *src_identity,
	});
}

SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_INGRESS };
	int ret;

	skb->mark = 0;
	skb->tc_index = 0;
	ret = config ? tunnel_identity(skb, &pkt, &drop.src_identity) : DROP(&pkt, DROP_NO_CONFIG, 0);
	if (ret)
		return drop_packet(skb, &pkt, ret, &drop);
	if (pkt.family != FAMILY_NONE)
		trace_packet(skb, config, pkt.family, &(struct trace){
			.point = FROM_OVERLAY,
			.reason = REASON_UNKNOWN,
			.src_identity = drop.src_identity,
			.ifindex = skb->ifindex,
			.monitor = MONITOR_DEFAULT,
		});
	ret = handle(skb, &pkt, config, &drop.src_identity);
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
