/* The node's own policy: what is about to enter the node's stack, and what its processes send to pods.
 *
 * Tail calls through cilium_calls: host_arrival from the ingress programs of the node's devices and of cilium_host,
 * host_departure from the egress program of cilium_host, where host_translated goes on. What leaves for the network is
 * judged at the device (tc_to_netdev.bpf.c).
 */
#include "host_policy.h"

/* The tunnel only says that some node sends; the address says which. */
static __always_inline __u32 sender_of(const struct packet *pkt, __u32 told)
{
	if (!told)
		return identity_of(&pkt->saddr, pkt->family);
	return told == IDENTITY_REMOTE_NODE ? node_of(&pkt->saddr, pkt->family) : told;
}

static __always_inline int receive(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				   __u32 *src_identity)
{
	int unreadable = parse_packet(skb, pkt), ret;
	struct ct_state ct = {};

	if (!is_host_address(&pkt->daddr, pkt->family) || is_link_chatter(pkt))
		return TC_ACT_OK;
	*src_identity = sender_of(pkt, *src_identity);
	/* An identity in the mark was for this program; the stack knows other marks. */
	skb->mark = 0;
	if (unreadable)
		return host_enforces(config, METRIC_INGRESS) ? unreadable : TC_ACT_OK;
	ret = host_track(skb, pkt, config, CT_INGRESS, &ct);
	if (!ret)
		ret = host_judge(skb, pkt, config, CT_INGRESS, *src_identity, ct.status);
	/* No rule about what comes to a node names a proxy. */
	if (ret >= 0)
		ret = host_open(skb, pkt, CT_INGRESS, *src_identity, &ct);
	return ret < 0 ? ret : TC_ACT_OK;
}

SEC("tc")
int host_arrival(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = {
		.direction = METRIC_INGRESS,
		.src_identity = skb->cb[HOST_SRC_IDENTITY],
		.dst_identity = IDENTITY_HOST,
	};
	int ret;

	if (config)
		drop.source = drop.dst_id = config->host_endpoint_id;
	ret = config ? receive(skb, &pkt, config, &drop.src_identity) : DROP(&pkt, DROP_NO_CONFIG, 0);
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

/* As from_host would find it. */
static __always_inline __u32 identity_at(const union addr *ip, __u8 family)
{
	const struct endpoint_info *local = find_endpoint(ip, family);

	return local && !(local->flags & ENDPOINT_HOST) ? local->identity : identity_of(ip, family);
}

SEC("tc")
int host_departure(struct __sk_buff *skb)
{
	struct ct_state known = { .status = skb->cb[SERVICE_REASON], .monitor = skb->cb[SERVICE_MONITOR] };
	bool translated = skb->cb[SERVICE_CALLER] == CALLER_HOST;
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_EGRESS, .src_identity = IDENTITY_HOST };
	int ret;

	ret = config ? parse_packet(skb, &pkt) : DROP(&pkt, DROP_NO_CONFIG, 0);
	if (!ret && config) {
		drop.source = config->host_endpoint_id;
		drop.dst_identity = identity_at(&pkt.daddr, pkt.family);
		ret = host_send(skb, &pkt, config, translated ? &known : NULL, drop.dst_identity);
	}
	if (!ret) {
		skb->tc_index |= TC_INDEX_SKIP_HOST;
		skb->cb[SERVICE_SRC_IDENTITY] = IDENTITY_HOST;
		bpf_tail_call(skb, &cilium_calls, CALL_HOST_TRANSLATED);
		ret = DROP(&pkt, DROP_MISSED_TAIL_CALL, CALL_HOST_TRANSLATED);
	}
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
