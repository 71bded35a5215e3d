/* ICMP errors: those that this node sends about its tunnel, and those from outside about what services answered.
 *
 * Tail calls through flowscope_errors (errors.h). An error is about a packet as it was when it met its fate; whoever
 * sent it knows it as it was before, and gets it back so.
 */
#include "backends.h"
#include "errors.h"
#include "forward.h"
#include "nat.h"
#include "services.h"

/* Back to where the packet has come from. Returns TC_ACT_*. */
static __always_inline int return_to_sender(struct __sk_buff *skb, const struct node_config *config)
{
	if (skb->ifindex != config->host_ifindex) {
		skb->tc_index = TC_INDEX_DELIVERED;
		return bpf_redirect(skb->ifindex, 0);
	}
	/* The node's stack, or a proxy that speaks with the address of somebody else. */
	skb->mark = MARK_TO_PROXY;
	return answer_host(skb, config);
}

/* A packet that does not fit into the tunnel is dropped, and its sender told how much does. */
SEC("tc")
int too_big(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) }, error = { .family = pkt.family };
	struct drop drop = {
		.direction = METRIC_EGRESS,
		.source = skb->cb[ERROR_SOURCE],
		.src_identity = skb->cb[ERROR_SRC_IDENTITY],
		.dst_identity = skb->cb[ERROR_DST_IDENTITY],
	};
	int ret;

	if (!config)
		return TC_ACT_SHOT;
	ret = parse_packet(skb, &pkt);
	drop_packet(skb, &pkt, ret ? ret : DROP(&pkt, DROP_TOO_BIG, 0), &drop);
	if (ret || !make_error(skb, &pkt, config->tunnel_mtu) || parse_packet(skb, &error) ||
	    translate_error(skb, &error))
		return TC_ACT_SHOT;
	return return_to_sender(skb, config);
}

/* A packet that a policy denies is dropped already; its sender is told. */
SEC("tc")
int denied(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) }, error = { .family = pkt.family };
	__be16 index_be = skb->cb[ERROR_SERVICE];
	struct inner inner = {};

	if (!config || parse_packet(skb, &pkt) || pkt.icmp_error || !make_error(skb, &pkt, ERROR_PROHIBITED) ||
	    parse_packet(skb, &error) || !load_inner(skb, &error, &inner) ||
	    translate_error_about(skb, &error, &inner, index_be))
		return TC_ACT_SHOT;
	return return_to_sender(skb, config);
}

/* The choice of the service's connection that an error is about, seen by the address which clients know. */
static __always_inline bool find_answering(const struct packet *pkt, const struct inner *inner, struct choice *choice)
{
	const struct ct_entry *entry;
	void *map = ct_map(pkt->family, inner->protocol);

	if (pkt->family == FAMILY_IPV4) {
		struct ct4_key key = { .daddr = pkt->inner_saddr.ip4, .saddr = pkt->inner_daddr.ip4,
				       .dport = inner->sport, .sport = inner->dport, .protocol = inner->protocol,
				       .flags = CT_SERVICE };

		entry = bpf_map_lookup_elem(map, &key);
	} else {
		struct ct6_key key = { .daddr = pkt->inner_saddr, .saddr = pkt->inner_daddr, .dport = inner->sport,
				       .sport = inner->dport, .protocol = inner->protocol, .flags = CT_SERVICE };

		entry = bpf_map_lookup_elem(map, &key);
	}
	return entry && find_backend(entry->rx_bytes, pkt->family, choice);
}

/* The backend of another node knows the client by this node's address. Returns 0 or -DROP_*. */
static __always_inline int hide_client(struct __sk_buff *skb, struct packet *pkt, const struct inner *inner)
{
	struct nat_key key = { .daddr = pkt->inner_saddr, .saddr = pkt->inner_daddr, .dport = inner->sport,
			       .sport = inner->dport, .protocol = inner->protocol, .direction = NAT_OUT };
	const struct nat_entry *entry = bpf_map_lookup_elem(nat_map(pkt->family), &key);
	union addr address;

	if (!entry)
		return DROP(pkt, DROP_NAT_NO_MAPPING, 0);
	address = entry->address;
	return rewrite_inner(skb, pkt, inner, SIDE_DESTINATION, &address, entry->port);
}

/* An error about what a service answered is for the backend that did. Returns TC_ACT_*, -DROP_*, or 0 with
 * the packet unchanged if it is about something else.
 */
static __always_inline int
tell_backend(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config, struct drop *drop)
{
	const struct endpoint_info *local;
	const struct ipcache_info *remote;
	struct choice choice = {};
	struct inner inner = {};
	int ret;

	if (!load_inner(skb, pkt, &inner) || !find_answering(pkt, &inner, &choice))
		return 0;
	ret = rewrite_address(skb, pkt, SIDE_DESTINATION, &choice.address);
	if (!ret)
		ret = rewrite_inner(skb, pkt, &inner, SIDE_SOURCE, &choice.address, choice.port);
	if (ret)
		return ret;
	inner.sport = choice.port;
	local = find_endpoint(&choice.address, pkt->family);
	if (local && !(local->flags & ENDPOINT_HOST))
		return deliver(skb, pkt, local, drop->src_identity, DELIVER_PEER);
	remote = find_ipcache(&choice.address, pkt->family);
	if (!remote || !has_tunnel(remote))
		return DROP(pkt, DROP_STALE_OR_UNROUTABLE, 0);
	drop->dst_identity = remote->identity;
	ret = hide_client(skb, pkt, &inner);
	return ret ? ret : encapsulate(skb, pkt, config, remote, drop->src_identity);
}

static __always_inline int
handle(struct __sk_buff *skb, struct packet *pkt, const struct node_config *config, struct drop *drop)
{
	const struct endpoint_info *local;
	int ret;

	ret = parse_packet(skb, pkt);
	if (ret)
		return ret;
	if (is_masquerade_address(config, pkt))
		ret = nat_error_back(skb, pkt);
	if (!ret)
		ret = tell_backend(skb, pkt, config, drop);
	else if (ret > 0)
		ret = 0;
	if (ret)
		return ret;
	local = find_endpoint(&pkt->daddr, pkt->family);
	if (local && !(local->flags & ENDPOINT_HOST))
		return deliver(skb, pkt, local, drop->src_identity, DELIVER_PEER);
	return !local && is_service_address(pkt) ? DROP(pkt, DROP_NO_BACKEND, 0) : TC_ACT_OK;
}

/* What comes from the network about something that this node, its pods or its services have sent. */
SEC("tc")
int outside_error(struct __sk_buff *skb)
{
	const struct node_config *config = node_config();
	struct packet pkt = { .family = packet_family(skb) };
	struct drop drop = { .direction = METRIC_INGRESS, .src_identity = skb->cb[ERROR_SRC_IDENTITY] };
	int ret;

	ret = config ? handle(skb, &pkt, config, &drop) : DROP(&pkt, DROP_NO_CONFIG, 0);
	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &drop);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
