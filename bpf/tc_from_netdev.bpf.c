/* tc ingress of the node's own devices: what arrives from the network.
 *
 * Pods' addresses may be reached directly (a route to this node): such packets are delivered with the identity that
 * the ipcache has for their source. Services behind a load balancer of layer 7 are their proxy's. All else, tunnel
 * packets too, is the stack's. (Other services, host policy.)
 */
#include "proxy.h"
#include "services.h"

static __always_inline __u8 tunnel_flag(const struct packet *pkt, const struct node_config *config)
{
	bool tunnel = pkt->protocol == IPPROTO_UDP && config->tunnel_port_be && pkt->dport == config->tunnel_port_be;

	return tunnel ? EVENT_FLAG_VXLAN : 0;
}

/* The proxy that stands for the service judges who may ask it, so no policy comes first. */
static __always_inline int to_load_balancer(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
					    __u32 src_identity, __be16 proxy_port_be)
{
	struct ct_state ct = {};
	int ret;

	ret = ct_lookup(skb, pkt, CT_INGRESS, config, &ct);
	if (!ret && ct_is_due(&ct, CT_ENTRY_PROXY))
		ret = ct_create(skb, pkt, CT_INGRESS, src_identity, CT_ENTRY_PROXY);
	if (ret)
		return ret;
	return redirect_to_proxy(skb, pkt, config, AT_INGRESS, &(struct trace){
		.reason = ct.status,
		.monitor = ct.monitor,
		.source = config->host_endpoint_id,
		.src_identity = src_identity,
		.dst_id = bpf_ntohs(proxy_port_be),
		.ifindex = skb->ifindex,
	});
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_INGRESS };
	const struct endpoint_info *local;
	const struct lb_service *service;
	int ret;

	if (pkt.family == FAMILY_NONE || !config)
		return TC_ACT_OK;
	skb->mark = 0;
	skb->tc_index = 0;
	ret = parse_packet(skb, &pkt);
	trace_packet(skb, config, pkt.family, &(struct trace){
		.point = FROM_NETWORK,
		.reason = REASON_UNKNOWN,
		.flags = tunnel_flag(&pkt, config),
		.source = config->host_endpoint_id,
		.ifindex = skb->ifindex,
		.monitor = MONITOR_DEFAULT,
	});
	/* What cannot be read here is not for a pod; the stack may know better. */
	if (ret)
		return TC_ACT_OK;
	service = find_service(&pkt);
	if (service && service_proxy_port(service)) {
		drop.source = config->host_endpoint_id;
		drop.src_identity = identity_of(&pkt.saddr, pkt.family);
		ret = to_load_balancer(skb, &pkt, config, drop.src_identity, service_proxy_port(service));
		return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
	}
	local = find_endpoint(&pkt.daddr, pkt.family);
	if (!local || local->flags & ENDPOINT_HOST)
		return TC_ACT_OK;
	drop.src_identity = identity_of(&pkt.saddr, pkt.family);
	drop.dst_identity = local->identity;
	drop.dst_id = local->endpoint_id;
	ret = deliver(skb, &pkt, local, drop.src_identity, DELIVER_PEER);
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
