/* tc ingress of the node's own devices: what arrives from the network.
 *
 * Services' addresses get a backend, or the proxy that chooses one. Answers to pods that left with the node's address
 * find the pod. Pods' addresses may be reached directly (a route to this node): such packets are delivered with the
 * identity that the ipcache has for their source. All else is the stack's, if the node's policy lets it; what other
 * nodes send through the tunnel is judged where it comes out.
 */
#include "announce.h"
#include "errors.h"
#include "forward.h"
#include "host_policy.h"
#include "nat.h"
#include "proxy.h"
#include "services.h"

static __always_inline __u8 tunnel_flag(const struct packet *pkt, const struct node_config *config)
{
	bool tunnel = pkt->protocol == IPPROTO_UDP && config->tunnel_port_be && pkt->dport == config->tunnel_port_be;

	return tunnel ? EVENT_FLAG_VXLAN : 0;
}

static __always_inline int to_endpoint(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				       const struct endpoint_info *local, struct drop *drop)
{
	if (local->flags & ENDPOINT_HOST)
		return host_receive(skb, pkt, config, drop->src_identity);
	drop->dst_identity = local->identity;
	drop->dst_id = local->endpoint_id;
	return deliver(skb, pkt, local, drop->src_identity, DELIVER_PEER);
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

/* A client outside asks for a service. Returns TC_ACT_* or -DROP_*. */
static __always_inline int to_service(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				      const struct lb_service *service, struct drop *drop)
{
	__be16 proxy_port_be = packet_proxy_port(pkt, service);
	int ret = service_admits(pkt, service);

	if (ret)
		return ret;
	if (!proxy_port_be) {
		skb->cb[SERVICE_SRC_IDENTITY] = drop->src_identity;
		return translate_service(skb, pkt, CALLER_NETDEV);
	}
	drop->source = config->host_endpoint_id;
	return to_load_balancer(skb, pkt, config, drop->src_identity, proxy_port_be);
}

static __always_inline int
handle(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config, struct drop *drop)
{
	const struct lb_service *service = find_service(pkt);
	const struct endpoint_info *local;
	int ret;

	if (unlikely(is_link_chatter(pkt)))
		return announce_neighbour(skb, pkt);
	if (service)
		return to_service(skb, pkt, config, service, drop);
	if (unlikely(pkt->icmp_error)) {
		skb->cb[ERROR_SRC_IDENTITY] = drop->src_identity;
		bpf_tail_call(skb, &flowscope_errors, CALL_OUTSIDE_ERROR);
		return DROP(pkt, DROP_MISSED_TAIL_CALL, CALL_OUTSIDE_ERROR);
	}
	if (is_masquerade_address(config, pkt)) {
		ret = nat_back(skb, pkt);
		if (ret < 0)
			return ret;
	}
	local = find_endpoint(&pkt->daddr, pkt->family);
	if (local)
		return to_endpoint(skb, pkt, config, local, drop);
	return is_service_address(pkt) ? DROP(pkt, DROP_NO_BACKEND, 0) : TC_ACT_OK;
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_INGRESS };
	int ret;

	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return announce_arp(skb, &pkt);
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
	/* The tunnel's end looks at what is in it. Whose it is matters only where not everybody may speak to the node. */
	if (!ret && tunnel_flag(&pkt, config) && !(config->flags & NODE_HOST_POLICY))
		return TC_ACT_OK;
	drop.src_identity = identity_of(&pkt.saddr, pkt.family);
	/* What cannot be read here is not for a pod; the stack may know better. So it does with tunnels of nodes. */
	if (ret)
		ret = host_receive(skb, &pkt, config, drop.src_identity);
	else if (tunnel_flag(&pkt, config))
		ret = is_remote_node(drop.src_identity) ? TC_ACT_OK :
							  host_receive(skb, &pkt, config, drop.src_identity);
	else
		ret = handle(skb, &pkt, config, &drop);
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

/* The second half for packets that the service program has translated: to a pod of this node as from the client, to
 * one of another node as from this one, so that the answer comes by here.
 */
static __always_inline int to_backend(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config,
				      struct drop *drop)
{
	const struct endpoint_info *local;
	const struct ipcache_info *remote;
	int ret;

	ret = parse_packet(skb, pkt);
	if (ret)
		return ret;
	local = find_endpoint(&pkt->daddr, pkt->family);
	if (local)
		return to_endpoint(skb, pkt, config, local, drop);
	remote = find_ipcache(&pkt->daddr, pkt->family);
	if (!remote || !has_tunnel(remote))
		return DROP(pkt, DROP_STALE_OR_UNROUTABLE, 0);
	drop->dst_identity = remote->identity;
	if (unlikely(is_too_big_for_tunnel(skb, pkt, config)))
		return refuse_too_big(skb, pkt, config->host_endpoint_id, drop->src_identity, remote->identity);
	ret = nat_out(skb, pkt, masquerade_address(config, pkt->family));
	if (ret)
		return ret;
	trace_packet(skb, config, pkt->family, &(struct trace){
		.point = TO_OVERLAY,
		.reason = skb->cb[SERVICE_REASON],
		.source = config->host_endpoint_id,
		.src_identity = drop->src_identity,
		.dst_identity = remote->identity,
		.ifindex = config->overlay_ifindex,
		.monitor = skb->cb[SERVICE_MONITOR],
	});
	return encapsulate(skb, pkt, config, remote, drop->src_identity);
}

SEC("tc")
int netdev_translated(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_INGRESS, .src_identity = skb->cb[SERVICE_SRC_IDENTITY] };
	int ret;

	ret = config ? to_backend(skb, &pkt, config, &drop) : DROP(&pkt, DROP_NO_CONFIG, 0);
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
