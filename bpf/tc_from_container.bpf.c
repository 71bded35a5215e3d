/* tc ingress of the host side of a pod's veth: everything a pod sends.
 *
 * source check -> services -> connection tracking -> who is the destination -> egress policy -> where to.
 * A packet to a service's address is handed to the service program, which comes back to container_translated.
 */
#include "errors.h"
#include "forward.h"
#include "neighbour.h"
#include "policy.h"
#include "proxy.h"
#include "services.h"

static __always_inline bool is_tunnel_packet(const struct packet *pkt, const struct node_config *config)
{
	return pkt->protocol == IPPROTO_UDP && config->tunnel_port_be && pkt->dport == config->tunnel_port_be;
}

static __always_inline bool owns_source(const struct interface_info *own, const struct packet *pkt)
{
	if (pkt->family == FAMILY_IPV4)
		return pkt->saddr.ip4 == own->ip4 && own->ip4;
	return same_address(&pkt->saddr, &own->ip6) && !is_unspecified(&own->ip6);
}

struct leg {				/* what came before: the service step, a load balancer, or nothing */
	__u32	handling;		/* of the connection, as far as it is known: CT_ENTRY_HANDLING, service's index */
	__be16	proxy_port_be;		/* a load balancer of layer 7 takes the packet: no policy, it has one of its own */
	enum hook hook;
};

/* Tell of a packet that the stack will throw away. Not static, as parse_packet(). Returns 0. */
__noinline int tell_unroutable(struct __sk_buff *skb, struct packet *pkt, const struct interface_info *own,
			       __u32 dst_identity, __u32 result)
{
	if (!pkt || !own)
		return 0;
	drop_packet(skb, pkt, DROP(pkt, DROP_FIB_LOOKUP_FAILED, result), &(struct drop){
		.direction = METRIC_EGRESS,
		.source = own->endpoint_id,
		.src_identity = own->identity,
		.dst_identity = dst_identity,
	});
	return 0;
}

/* Does a connection go on that is not known, because its entry had to give way in a full map? If this is what a service
 * answers, the client's half may still be there, and no other half is to be made: the client makes it when it speaks.
 */
static __always_inline bool goes_on(const struct packet *pkt, const struct ct_state *ct)
{
	return ct->status == CT_NEW && (pkt->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN;
}

/* Send a checked packet on its way. Fills the destination's identity; returns TC_ACT_* or -DROP_*. */
static __always_inline int route(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				 const struct interface_info *own, const struct leg *leg, __u32 *dst_identity)
{
	const struct endpoint_info *local;
	const struct ipcache_info *remote = NULL;
	struct ct_state ct = {};
	struct policy_question question = {
		.endpoint_id = own->endpoint_id,
		.own_identity = own->identity,
		.direction = METRIC_EGRESS,
	};
	__be16 proxy_port_be = leg->proxy_port_be;
	int ret, unroutable = 0;
	__u32 handling;
	bool leaves;

	ret = ct_lookup(skb, pkt, CT_EGRESS, config, &ct);
	if (ret)
		return ret;
	/* The pod serves a proxy that speaks with its client's address: the answer is the proxy's, not the client's. */
	if (ct.status == CT_REPLY && ct.flags & CT_ENTRY_PROXY)
		return redirect_to_proxy(skb, pkt, config, leg->hook, &(struct trace){
			.reason = ct.status,
			.monitor = ct.monitor,
			.source = own->endpoint_id,
			.src_identity = own->identity,
		});

	/* What a pod answers to itself goes to itself, whatever it says on it. */
	local = find_endpoint(ct.status == CT_REPLY && ct.flags & CT_ENTRY_LOOPBACK ? &pkt->saddr : &pkt->daddr,
			      pkt->family);
	if (local && !(local->flags & ENDPOINT_HOST)) {
		*dst_identity = local->identity;
	} else if (local) {
		/* The node has an address for its load balancers, too. */
		*dst_identity = identity_of(&pkt->daddr, pkt->family);
		if (*dst_identity == IDENTITY_WORLD)
			*dst_identity = IDENTITY_HOST;
	} else {
		remote = find_ipcache(&pkt->daddr, pkt->family);
		*dst_identity = remote && remote->identity ? remote->identity : IDENTITY_WORLD;
		if (!proxy_port_be && !has_tunnel(remote) && unlikely(is_service_address(pkt)))
			return DROP(pkt, DROP_NO_BACKEND, 0);
	}

	question.identity = *dst_identity;
	question.ct_status = ct.status;
	if (proxy_port_be) {
		tell_redirected(skb, pkt, &question, proxy_port_be);
	} else if (!(leg->handling & CT_ENTRY_LOOPBACK)) {
		ret = policy_check(skb, pkt, &question);
		if (ret < 0)
			return ret;
		proxy_port_be = ret;
	}
	/* Other nodes may be clients like any other outside: what they asked came without a tunnel. */
	leaves = (!local || local->flags & ENDPOINT_HOST) && (!has_tunnel(remote) || is_remote_node(remote->identity));
	if (leaves && (ct.status == CT_REPLY || unlikely(goes_on(pkt, &ct)))) {
		if (answers_for_node(pkt))
			return translate_answer(skb, pkt, &(struct trace){
				.reason = CT_REPLY,
				.monitor = ct.monitor,
				.source = own->endpoint_id,
				.src_identity = own->identity,
				.dst_identity = *dst_identity,
			});
		/* The client's half had to give way in a full map. Under the backend's address the client would not
		 * know the answer; when it speaks again, the half is there again.
		 */
		if (unlikely(ct.flags & CT_ENTRY_NODE_PORT))
			return DROP(pkt, DROP_NAT_NO_MAPPING, 0);
	}
	handling = leg->handling | (proxy_port_be ? CT_ENTRY_PROXY : 0);
	/* Asked once for each connection that leaves the cluster, and with each packet while there is no route. */
	if (!local && !proxy_port_be && !has_tunnel(remote) &&
	    unlikely(ct.status == CT_NEW || ct.flags & CT_ENTRY_NO_ROUTE)) {
		unroutable = why_unroutable(skb, pkt);
		handling |= unroutable ? CT_ENTRY_NO_ROUTE : 0;
	}
	if (ct_is_due(&ct, handling)) {
		ret = ct_create(skb, pkt, CT_EGRESS, own->identity, handling);
		if (ret)
			return ret;
	}
	if (proxy_port_be)
		return redirect_to_proxy(skb, pkt, config, leg->hook, &(struct trace){
			.reason = ct.status,
			.monitor = ct.monitor,
			.source = own->endpoint_id,
			.src_identity = own->identity,
			.dst_id = bpf_ntohs(proxy_port_be),
		});

	if (local && !(local->flags & ENDPOINT_HOST))
		return deliver(skb, pkt, local, own->identity, leg->hook == AT_INGRESS ? DELIVER_PEER : DELIVER_DEVICE);

	struct trace trace = {
		.reason = ct.status,
		.monitor = ct.monitor,
		.source = own->endpoint_id,
		.src_identity = own->identity,
		.dst_identity = *dst_identity,
	};
	if (!has_tunnel(remote) && ct.status == CT_RELATED)
		return translate_answer(skb, pkt, &trace);
	if (local) {
		trace.point = TO_HOST;
		trace.ifindex = config->host_ifindex;
		trace_packet(skb, config, pkt->family, &trace);
		return to_host(skb, pkt, config);
	}
	if (has_tunnel(remote)) {
		if (unlikely(is_too_big_for_tunnel(skb, pkt, config)))
			return refuse_too_big(skb, pkt, own->endpoint_id, own->identity, *dst_identity);
		trace.point = TO_OVERLAY;
		trace.ifindex = config->overlay_ifindex;
		trace_packet(skb, config, pkt->family, &trace);
		return encapsulate(skb, pkt, config, remote, own->identity);
	}
	/* The stack routes, not a FIB lookup here: so routes by source, marks and netfilter of the node hold for pods, too, and
	 * the event is the reference's to-stack. The node's address is given at the device (to_netdev).
	 */
	if (unlikely(unroutable)) {
		/* The stack, which looks at more than routes when it answers, tells the pod. */
		tell_unroutable(skb, pkt, own, *dst_identity, unroutable);
	} else {
		trace.point = TO_STACK;
		trace_packet(skb, config, pkt->family, &trace);
	}
	skb->mark = mark_of(MARK_IDENTITY, own->identity);
	return leg->hook == AT_INGRESS ? TC_ACT_OK : to_host(skb, pkt, config);
}

/* `own` is NULL when the pod is being removed: its device is still here, it is not an endpoint any more. */
static __always_inline int handle(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				  const struct interface_info *own, __u32 *dst_identity)
{
	const struct lb_service *service;
	struct leg leg = { .hook = AT_INGRESS };
	int ret;

	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return own ? answer_arp(skb, pkt, own) : TC_ACT_SHOT;
	if (pkt->family == FAMILY_NONE)
		return DROP(pkt, DROP_UNSUPPORTED_L3, 0);
	ret = parse_packet(skb, pkt);
	if (ret)
		return ret;
	if (unlikely(is_link_chatter(pkt)))
		return own ? handle_link_chatter(skb, pkt, own) : TC_ACT_SHOT;
	if (!own)
		return DROP(pkt, DROP_ENDPOINT_NOT_READY, 0);
	if (!owns_source(own, pkt))
		return DROP(pkt, DROP_INVALID_SOURCE_IP, 0);
	if (is_tunnel_packet(pkt, config))
		return DROP(pkt, DROP_ENCAPSULATION_PROHIBITED, 0);
	service = find_service(pkt);
	if (service) {
		leg.proxy_port_be = packet_proxy_port(pkt, service);
		if (!leg.proxy_port_be)
			return translate_service(skb, pkt, CALLER_CONTAINER);
	}
	return route(skb, pkt, config, own, &leg, dst_identity);
}

/* Tell that a pod sends. Not static, as parse_packet(): the verifier need not look at all that follows once for each way
 * through here. Returns 0.
 */
__noinline int tell_from_endpoint(struct __sk_buff *skb, const struct node_config *config,
				  const struct interface_info *own, __u32 family)
{
	if (!config || !own)
		return 0;
	trace_packet(skb, config, family, &(struct trace){
		.point = FROM_ENDPOINT,
		.reason = REASON_UNKNOWN,
		.source = own->endpoint_id,
		.src_identity = own->identity,
		.monitor = MONITOR_DEFAULT,
	});
	return 0;
}

SEC("tc")
int from_container(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_EGRESS };
	const struct interface_info *own;
	__u32 ifindex = skb->ifindex;
	int ret;

	skb->mark = 0;
	skb->tc_index = 0;
	own = bpf_map_lookup_elem(&flowscope_interfaces, &ifindex);
	if (own) {
		drop.source = own->endpoint_id;
		drop.src_identity = own->identity;
	}
	if (config && own && pkt.family != FAMILY_NONE && config->aggregation < AGGREGATE_LOWEST)
		tell_from_endpoint(skb, config, own, pkt.family);
	ret = config ? handle(skb, &pkt, config, own, &drop.dst_identity) : DROP(&pkt, DROP_NO_CONFIG, 0);
	return ret >= 0 ? ret : refuse(skb, &pkt, config, ret, &drop, 0);
}

/* What a load balancer of this node sends to a backend in a pod's name, tail call through cilium_egresscall_policy[the
 * pod's endpoint id] from from_host: judged and routed as if the pod had sent it.
 */
SEC("tc")
int endpoint_egress(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct leg leg = { .handling = CT_ENTRY_FROM_L7LB, .hook = AT_EGRESS };
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_EGRESS };
	__u32 ifindex = skb->cb[SCRATCH_IFINDEX];
	const struct interface_info *own;
	int ret;

	skb->tc_index = 0;
	own = bpf_map_lookup_elem(&flowscope_interfaces, &ifindex);
	ret = config && own ? parse_packet(skb, &pkt) : DROP(&pkt, DROP_ENDPOINT_NOT_READY, 0);
	if (!ret && config && own) {
		drop.source = own->endpoint_id;
		drop.src_identity = own->identity;
		ret = route(skb, &pkt, config, own, &leg, &drop.dst_identity);
	}
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

/* The second half for packets that the service program has translated. */
SEC("tc")
int container_translated(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct leg leg = { .handling = skb->cb[SERVICE_HANDLING], .hook = AT_INGRESS };
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_EGRESS };
	const struct interface_info *own;
	__u32 ifindex = skb->ifindex;
	int ret;

	own = bpf_map_lookup_elem(&flowscope_interfaces, &ifindex);
	if (!config || !own)
		return drop_packet(skb, &pkt, DROP(&pkt, DROP_NO_CONFIG, 0), &drop);
	drop.source = own->endpoint_id;
	drop.src_identity = own->identity;
	ret = parse_packet(skb, &pkt);
	if (!ret)
		ret = route(skb, &pkt, config, own, &leg, &drop.dst_identity);
	return ret >= 0 ? ret : refuse(skb, &pkt, config, ret, &drop, leg.handling >> CT_REV_NAT_SHIFT);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
