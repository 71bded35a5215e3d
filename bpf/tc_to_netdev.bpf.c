/* tc egress of the node's own devices: what leaves for the network. Pods get the node's address; the node's own
 * processes may say what its policy lets them.
 */
#include "host_policy.h"
#include "nat.h"
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

/* Do others see this destination's clients with their own addresses? */
static __always_inline bool is_not_masqueraded(const struct packet *pkt)
{
	struct ipcache_key key = {
		.prefix_length = IPCACHE_STATIC_BITS + (pkt->family == FAMILY_IPV4 ? 32 : 128),
		.family = pkt->family,
		.ip = pkt->daddr,
	};

	return bpf_map_lookup_elem(&cilium_ipmasq, &key);
}

/* What a pod of this node opens leaves with the node's address; fills the one it had. Returns 0 or -DROP_*. */
static __always_inline int
masquerade(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config, union addr *orig_ip)
{
	const union addr *node = masquerade_address(config, pkt->family);
	const struct endpoint_info *pod;

	if (is_unspecified(node) || parse_packet(skb, pkt) || pkt->icmp_error)
		return 0;
	pod = find_endpoint(&pkt->saddr, pkt->family);
	if (!pod || pod->flags & ENDPOINT_HOST || is_not_masqueraded(pkt) || ct_is_reply(pkt, CT_EGRESS))
		return 0;
	*orig_ip = pkt->saddr;
	return nat_out(skb, pkt, node);
}

/* Does a process of the node send this? What our own programs forward says otherwise. Returns as host_send(). */
static __always_inline int
judge_own(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config, struct drop *drop)
{
	int unreadable;

	if (!(config->flags & NODE_HOST_POLICY) || skb->tc_index & (TC_INDEX_SKIP_HOST | TC_INDEX_DELIVERED))
		return 0;
	unreadable = parse_packet(skb, pkt);
	if (is_link_chatter(pkt) || !is_host_address(&pkt->saddr, pkt->family))
		return 0;
	drop->source = config->host_endpoint_id;
	drop->src_identity = IDENTITY_HOST;
	drop->dst_identity = identity_of(&pkt->daddr, pkt->family);
	if (unreadable)
		return host_enforces(config, METRIC_EGRESS) ? unreadable : 0;
	return host_send(skb, pkt, config, NULL, drop->dst_identity);
}

SEC("tc")
int to_netdev(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_EGRESS };
	union addr orig_ip = {};
	__u8 flags = 0;
	int ret = 0;

	if (pkt.family == FAMILY_NONE || !config)
		return TC_ACT_OK;
	switch (skb->mark & MARK_KIND_MASK) {
	case MARK_OVERLAY:
		flags = EVENT_FLAG_VXLAN;
		drop.src_identity = mark_identity(skb->mark);
		break;
	case MARK_IDENTITY:
		drop.src_identity = mark_identity(skb->mark);
		break;
	case MARK_FROM_INGRESS_PROXY:
	case MARK_FROM_EGRESS_PROXY:
		ret = note_proxy(skb, &pkt, config, &drop.src_identity);
		break;
	case MARK_FROM_L7LB:
		break;
	default:
		ret = judge_own(skb, &pkt, config, &drop);
	}
	if (!ret && !flags)
		ret = masquerade(skb, &pkt, config, &orig_ip);
	if (ret)
		return ret > 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
	trace_packet(skb, config, pkt.family, &(struct trace){
		.point = TO_NETWORK,
		.reason = REASON_UNKNOWN,
		.flags = flags,
		.source = config->host_endpoint_id,
		.src_identity = drop.src_identity,
		.ifindex = skb->ifindex,
		.orig_ip = orig_ip,
	});
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
