/* The policy of the node itself: who may talk to its own processes, and to whom these may.
 *
 * The node is an endpoint like a pod: it has an id (config->host_endpoint_id) and, by that id, a policy map. What is
 * judged has an address of the node at its end, so packets that only pass through are not looked at. Nor is the tunnel
 * between nodes: pods' policies have judged what is inside. The node's connections are tracked while no policy is about
 * it, too, so that a policy that comes knows which packets are replies.
 */
#ifndef FLOWSCOPE_HOST_POLICY_H
#define FLOWSCOPE_HOST_POLICY_H

#include "calls.h"
#include "lookup.h"
#include "policy.h"
#include "proxy.h"

/* By the ipcache: the address of the node's load balancers is here too, and is not the node's. */
static __always_inline bool is_host_address(const union addr *ip, __u8 family)
{
	return identity_of(ip, family) == IDENTITY_HOST;
}

/* Is anything refused in this direction? Then what cannot be read may not pass either. */
static __always_inline bool host_enforces(const struct node_config *config, __u8 direction)
{
	__u32 endpoint_id = config->host_endpoint_id;
	void *policy = bpf_map_lookup_elem(&flowscope_policies, &endpoint_id);

	return policy && policy_settings(policy) & direction;
}

/* Find a connection of the node's own. Protocols without connections are judged packet by packet. Returns 0 or -DROP_*. */
static __always_inline int host_track(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				      enum ct_direction direction, struct ct_state *ct)
{
	return ct_known_protocol(pkt) ? ct_lookup(skb, pkt, direction, config, ct) : 0;
}

/* May the node send this, or receive it? `identity` is the other side's. Returns 0: yes; above 0: port of the proxy that
 * decides further, as on the wire; -DROP_*.
 */
static __always_inline int host_judge(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				      enum ct_direction direction, __u32 identity, __u8 ct_status)
{
	return policy_check(skb, pkt, &(struct policy_question){
		.endpoint_id = config->host_endpoint_id,
		.own_identity = IDENTITY_HOST,
		.identity = identity,
		.direction = direction == CT_EGRESS ? METRIC_EGRESS : METRIC_INGRESS,
		.ct_status = ct_status,
	});
}

/* Remember a connection that may begin. Returns 0 or -DROP_*. */
static __always_inline int host_open(struct __sk_buff *skb, struct packet *pkt, enum ct_direction direction,
				     __u32 src_identity, const struct ct_state *ct)
{
	if (ct->status != CT_NEW || !ct_known_protocol(pkt))
		return 0;
	return ct_create(skb, pkt, direction, src_identity, 0);
}

/* A process of the node sends; called at egress. `known` is what connection tracking has said about a packet that was
 * translated on the way here, NULL: it has not been asked. Returns 0: go on; TC_ACT_*: a proxy has the packet; -DROP_*.
 */
static __always_inline int host_send(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				     const struct ct_state *known, __u32 dst_identity)
{
	struct ct_state ct = {};
	int verdict, ret;

	if (known)
		ct = *known;
	ret = known ? 0 : host_track(skb, pkt, config, CT_EGRESS, &ct);
	/* The stack complains about packets that were let in. */
	if (ret || pkt->icmp_error)
		return ret;
	verdict = host_judge(skb, pkt, config, CT_EGRESS, dst_identity, ct.status);
	if (verdict < 0)
		return verdict;
	ret = known ? 0 : host_open(skb, pkt, CT_EGRESS, IDENTITY_HOST, &ct);
	if (ret || !verdict)
		return ret;
	return redirect_to_proxy(skb, pkt, config, AT_EGRESS, &(struct trace){
		.reason = ct.status,
		.monitor = ct.monitor,
		.source = config->host_endpoint_id,
		.src_identity = IDENTITY_HOST,
		.dst_id = bpf_ntohs(verdict),
	});
}

/* Let the node's policy decide about what has arrived, and the stack have it. `identity` of the sender, 0: by its
 * address. Returns TC_ACT_OK where policies are not for nodes; else only on failure.
 */
static __always_inline int
host_receive(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config, __u32 identity)
{
	if (!(config->flags & NODE_HOST_POLICY))
		return TC_ACT_OK;
	skb->cb[HOST_SRC_IDENTITY] = identity;
	bpf_tail_call(skb, &cilium_calls, CALL_HOST_ARRIVAL);
	return DROP(pkt, DROP_HOST_NOT_READY, 0);
}

#endif
