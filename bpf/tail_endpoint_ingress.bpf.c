/* The endpoint's ingress step: everything that is about to enter a pod, whoever brings it.
 *
 * Tail call through cilium_call_policy[endpoint id] from the programs that found the endpoint; they have rewritten
 * MACs and TTL and left who sent the packet in the scratch area. Connection tracking -> ingress policy -> delivery.
 * An endpoint without an entry in the array gets nothing: there is no moment at which a pod is reachable unchecked.
 */
#include "policy.h"
#include "proxy.h"
#include "services.h"

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

/* Is this packet for a proxy that opened the connection in the pod's name, and not for the pod? */
static __always_inline bool
is_for_proxy(struct __sk_buff *skb, const struct packet *pkt, const struct ct_state *ct)
{
	if (ct->status == CT_REPLY)
		return ct->flags & CT_ENTRY_FROM_L7LB ||
		       (ct->flags & CT_ENTRY_PROXY && !(skb->tc_index & TC_INDEX_FROM_EGRESS_PROXY));
	/* Answers of the node itself, whose half of the connection is not tracked; and of a connection whose entry had
	 * to give way to others.
	 */
	return ct->status == CT_NEW && pkt->tcp_flags & TCP_ACK && has_proxy_socket(skb, pkt);
}

/* Is this what the pod says to itself through a service? Its egress half has an entry that says so. */
static __always_inline bool is_own_loopback(const struct packet *pkt)
{
	const struct ct_entry *entry;

	if (likely(!is_loopback_address(&pkt->saddr, pkt->family)))
		return false;
	entry = ct_peek(pkt, CT_EGRESS, false);
	return entry && entry->flags & CT_ENTRY_LOOPBACK;
}

static __always_inline int receive(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				   const struct arrival *arrival)
{
	struct trace trace = {
		.source = arrival->endpoint_id,
		.src_identity = arrival->src_identity,
		.dst_identity = arrival->dst_identity,
		.ifindex = arrival->ifindex,
	};
	enum hook hook = arrival->how == DELIVER_PEER ? AT_INGRESS : AT_EGRESS;
	__be16 proxy_port_be = 0;
	struct ct_state ct = {};
	__u32 handling = 0;
	int ret;

	ret = parse_packet(skb, pkt);
	if (ret)
		return ret;
	ret = ct_lookup(skb, pkt, CT_INGRESS, config, &ct);
	if (ret)
		return ret;
	trace.reason = ct.status;
	trace.monitor = ct.monitor;
	if (is_for_proxy(skb, pkt, &ct)) {
		trace.reason = CT_REPLY;
		return redirect_to_proxy(skb, pkt, config, hook, &trace);
	}
	/* What the pod's own proxy sends has been judged, by the policy and by the proxy. */
	if (is_own_loopback(pkt)) {
		handling = CT_ENTRY_LOOPBACK;
	} else if (!(skb->tc_index & TC_INDEX_FROM_INGRESS_PROXY)) {
		ret = policy_check(skb, pkt, &(struct policy_question){
			.endpoint_id = arrival->endpoint_id,
			.own_identity = arrival->dst_identity,
			.identity = arrival->src_identity,
			.direction = METRIC_INGRESS,
			.ct_status = ct.status,
		});
		if (ret < 0)
			return ret;
		proxy_port_be = ret;
	}
	if (proxy_port_be || skb->tc_index & TC_INDEX_FROM_INGRESS_PROXY)
		handling |= CT_ENTRY_PROXY;
	if (skb->tc_index & TC_INDEX_TRANSLATED)
		handling |= CT_ENTRY_NODE_PORT;
	if (ct_is_due(&ct, handling)) {
		ret = ct_create(skb, pkt, CT_INGRESS, arrival->src_identity, handling);
		if (ret)
			return ret;
	}
	if (proxy_port_be) {
		trace.dst_id = bpf_ntohs(proxy_port_be);
		trace.orig_ip = pkt->saddr;
		return redirect_to_proxy(skb, pkt, config, hook, &trace);
	}
	if (ct.status == CT_REPLY && ct.rev_nat_index_be) {
		trace.orig_ip = pkt->saddr;
		ret = translate_reply(skb, pkt, &ct);
		if (ret)
			return ret;
	}
	if (unlikely(ct.status == CT_RELATED)) {
		ret = translate_error(skb, pkt);
		if (ret)
			return ret;
	}
	trace.point = TO_ENDPOINT;
	trace.dst_id = arrival->endpoint_id;
	trace_packet(skb, config, pkt->family, &trace);
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
