/* tc egress of cilium_host: packets of the node's own stack to pods, here or on other nodes. */
#include "errors.h"
#include "forward.h"
#include "host_policy.h"
#include "proxy.h"
#include "services.h"

/* A load balancer speaks in a pod's name: go on in that pod's egress program. Returns when the source is no pod of this
 * node, with 0, or when that program is not there, with -DROP_*.
 */
static __always_inline int speak_for_pod(struct __sk_buff *skb, struct packet *pkt)
{
	const struct endpoint_info *pod = find_endpoint(&pkt->saddr, pkt->family);

	if (!pod || pod->flags & ENDPOINT_HOST)
		return 0;
	skb->cb[SCRATCH_IFINDEX] = pod->ifindex;
	bpf_tail_call(skb, &cilium_egresscall_policy, pod->endpoint_id);
	return DROP(pkt, DROP_ENDPOINT_NOT_READY, 0);
}

static __always_inline int handle(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				  __u32 src_identity, bool from_l7lb, __u32 *dst_identity)
{
	const struct endpoint_info *local;
	const struct ipcache_info *remote;
	/* Connections of the node are not tracked, so each packet is shown. */
	struct ct_state ct = { .monitor = MONITOR_DEFAULT };
	int ret;

	if (skb->tc_index & TC_INDEX_FROM_PROXY) {
		ret = from_l7lb ? speak_for_pod(skb, pkt) :
				  track_proxy(skb, pkt, config, src_identity, skb->tc_index, &ct);
		if (ret)
			return ret;
	}
	local = find_endpoint(&pkt->daddr, pkt->family);
	if (local && !(local->flags & ENDPOINT_HOST)) {
		*dst_identity = local->identity;
		return deliver(skb, pkt, local, src_identity, DELIVER_DEVICE);
	}
	remote = find_ipcache(&pkt->daddr, pkt->family);
	if (remote)
		*dst_identity = remote->identity;
	/* The load balancer's own connections take this way wherever they lead. */
	if (from_l7lb && !local && !has_tunnel(remote)) {
		skb->mark = mark_of(MARK_IDENTITY, src_identity);
		return to_host(skb, pkt, config);
	}
	/* Only addresses of pods are routed to this device: one that nobody has is a pod that is gone. */
	if (is_service_address(pkt))
		return DROP(pkt, DROP_NO_BACKEND, 0);
	if (local || !has_tunnel(remote))
		return DROP(pkt, DROP_STALE_OR_UNROUTABLE, 0);
	if (unlikely(is_too_big_for_tunnel(skb, pkt, config)))
		return refuse_too_big(skb, pkt, config->host_endpoint_id, src_identity, *dst_identity);
	trace_packet(skb, config, pkt->family, &(struct trace){
		.point = TO_OVERLAY,
		.reason = REASON_UNKNOWN,
		.source = config->host_endpoint_id,
		.src_identity = src_identity,
		.dst_identity = remote->identity,
		.ifindex = config->overlay_ifindex,
		.monitor = ct.monitor,
	});
	return encapsulate(skb, pkt, config, remote, src_identity);
}

/* A process of the node asks for a service. Returns TC_ACT_* or -DROP_*, or not at all. */
static __always_inline int to_service(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				      const struct lb_service *service, __u32 src_identity)
{
	__be16 proxy_port_be = packet_proxy_port(pkt, service);

	if (!proxy_port_be) {
		skb->cb[SERVICE_SRC_IDENTITY] = src_identity;
		return translate_service(skb, pkt, CALLER_HOST);
	}
	return redirect_to_proxy(skb, pkt, config, AT_EGRESS, &(struct trace){
		.reason = CT_NEW,
		.monitor = MONITOR_DEFAULT,
		.source = config->host_endpoint_id,
		.src_identity = src_identity,
		.dst_id = bpf_ntohs(proxy_port_be),
	});
}

/* A process of the node speaks, and has not been judged yet. */
static __always_inline bool is_to_be_judged(struct __sk_buff *skb, const struct node_config *config, __u32 src_identity)
{
	return config->flags & NODE_HOST_POLICY && src_identity == IDENTITY_HOST &&
	       !(skb->tc_index & (TC_INDEX_FROM_PROXY | TC_INDEX_SKIP_HOST));
}

/* Let the node's policy decide; it comes back to host_translated. Returns only on failure. */
static __always_inline int judge(struct __sk_buff *skb, struct packet *pkt, enum caller caller)
{
	skb->cb[SERVICE_CALLER] = caller;
	bpf_tail_call(skb, &cilium_calls, CALL_HOST_DEPARTURE);
	return DROP(pkt, DROP_HOST_NOT_READY, 0);
}

/* The second half for packets that the service program has translated, and that the node's policy lets pass. */
SEC("tc")
int host_translated(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_EGRESS, .src_identity = skb->cb[SERVICE_SRC_IDENTITY] };
	int ret;

	ret = config ? parse_packet(skb, &pkt) : DROP(&pkt, DROP_NO_CONFIG, 0);
	if (!ret && config) {
		drop.source = config->host_endpoint_id;
		ret = is_to_be_judged(skb, config, drop.src_identity) ?
			      judge(skb, &pkt, CALLER_HOST) :
			      handle(skb, &pkt, config, drop.src_identity, false, &drop.dst_identity);
	}
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

SEC("tc")
int from_host(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_EGRESS };
	const struct lb_service *service;
	bool from_l7lb = (skb->mark & MARK_KIND_MASK) == MARK_FROM_L7LB;
	int ret;

	/* Neighbour discovery of the device itself. */
	if (pkt.family == FAMILY_NONE)
		return TC_ACT_OK;
	ret = config ? parse_packet(skb, &pkt) : DROP(&pkt, DROP_NO_CONFIG, 0);
	if (ret)
		return drop_packet(skb, &pkt, ret, &drop);
	if (is_link_chatter(&pkt))
		return TC_ACT_OK;
	drop.source = config->host_endpoint_id;
	drop.src_identity = identity_from_stack(skb, &pkt);
	skb->tc_index = proxy_of(skb->mark);
	skb->mark = 0;
	trace_packet(skb, config, pkt.family, &(struct trace){
		.point = skb->tc_index & TC_INDEX_FROM_PROXY ? FROM_PROXY : FROM_HOST,
		.reason = REASON_UNKNOWN,
		.source = config->host_endpoint_id,
		.src_identity = drop.src_identity,
		.ifindex = skb->ifindex,
		.monitor = MONITOR_DEFAULT,
	});
	/* Proxies speak to backends, never to services. */
	service = skb->tc_index & TC_INDEX_FROM_PROXY ? NULL : find_service(&pkt);
	if (service)
		ret = to_service(skb, &pkt, config, service, drop.src_identity);
	else if (is_to_be_judged(skb, config, drop.src_identity))
		ret = judge(skb, &pkt, CALLER_NONE);
	else
		ret = handle(skb, &pkt, config, drop.src_identity, from_l7lb, &drop.dst_identity);
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
