/* The endpoint's ingress step: everything that is about to enter a pod, whoever brings it.
 *
 * Tail call through cilium_call_policy[endpoint id] from the programs that found the endpoint; they have rewritten
 * MACs and TTL and left who sent the packet in the scratch area. Connection tracking -> ingress policy -> delivery.
 * An endpoint without an entry in the array gets nothing: there is no moment at which a pod is reachable unchecked.
 */
#include "policy.h"

struct arrival {
	__u32	src_identity;
	__u32	dst_identity;
	__u32	ifindex;
	__u16	endpoint_id;
	__u16	how;			/* enum deliver */
};

static __always_inline int hand_over(struct __sk_buff *skb, const struct arrival *arrival)
{
	switch (arrival->how) {
	case DELIVER_PEER:
		return bpf_redirect_peer(arrival->ifindex, 0);
	case DELIVER_DEVICE:
		skb->tc_index = TC_INDEX_DELIVERED;
		return bpf_redirect(arrival->ifindex, 0);
	}
	return TC_ACT_OK;
}

static __always_inline int receive(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				   const struct arrival *arrival)
{
	struct ct_state ct = {};
	int ret;

	ret = parse_packet(skb, pkt);
	if (ret)
		return ret;
	ret = ct_lookup(skb, pkt, CT_INGRESS, config, &ct);
	if (ret)
		return ret;
	ret = policy_check(skb, pkt, &(struct policy_question){
		.endpoint_id = arrival->endpoint_id,
		.identity = arrival->src_identity,
		.direction = METRIC_INGRESS,
		.ct_status = ct.status,
	});
	if (ret < 0)
		return ret;
	/* Nobody listens on the ports of proxies yet: what a proxy has to judge does not pass unjudged. */
	if (ret > 0)
		return DROP(pkt, DROP_PROXY_NOT_SUPPORTED, 0);
	if (ct.status == CT_NEW) {
		ret = ct_create(skb, pkt, CT_INGRESS, arrival->src_identity);
		if (ret)
			return ret;
	}
	trace_packet(skb, config, pkt->family, &(struct trace){
		.point = TO_ENDPOINT,
		.reason = ct.status,
		.source = arrival->endpoint_id,
		.src_identity = arrival->src_identity,
		.dst_identity = arrival->dst_identity,
		.dst_id = arrival->endpoint_id,
		.ifindex = arrival->ifindex,
		.monitor = ct.monitor,
	});
	return hand_over(skb, arrival);
}

SEC("tc")
int endpoint_ingress(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct arrival arrival = {
		.src_identity = skb->cb[SCRATCH_SRC_IDENTITY],
		.dst_identity = skb->cb[SCRATCH_DST_IDENTITY],
		.ifindex = skb->cb[SCRATCH_IFINDEX],
		.endpoint_id = skb->cb[SCRATCH_ENDPOINT],
		.how = skb->cb[SCRATCH_ENDPOINT] >> 16,
	};
	int ret;

	ret = config ? receive(skb, &pkt, config, &arrival) : DROP(&pkt, DROP_NO_CONFIG, 0);
	if (ret >= 0)
		return ret;
	return drop_packet(skb, &pkt, ret, &(struct drop){
		.direction = METRIC_INGRESS,
		.source = arrival.endpoint_id,
		.dst_id = arrival.endpoint_id,
		.src_identity = arrival.src_identity,
		.dst_identity = arrival.dst_identity,
	});
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
