/* The service step: a packet to a service's address gets a backend, and goes on in the second half of the caller.
 *
 * Tail call through cilium_calls from the programs that found the service, so that packets to anything else pay for
 * one lookup and nothing more. The backend of a connection stays the same while it exists: the entry with CT_SERVICE
 * remembers it. New connections get one by a number that stands for them, by the client's affinity, or (from outside,
 * if the service says so) by a Maglev table. So a connection whose entry had to give way in a full map finds its
 * backend again, if the service still has the same ones. And a connection that a proxy took, which stood for the service
 * then, is the proxy's until it ends.
 */
#include "backends.h"
#include "events.h"
#include "forward.h"
#include "hash.h"
#include "nat.h"
#include "proxy.h"
#include "reject.h"
#include "services.h"

/* A client that closes may still be reading, so the choice outlives the connection's end, as long as packets come. */
#define CT_SERVICE_CLOSE_S	60

static __always_inline struct affinity_key client_of(const struct packet *pkt, const struct lb_service *service)
{
	return (struct affinity_key){ .client = pkt->saddr, .rev_nat_index_be = service->rev_nat_index_be };
}

static __always_inline __u32 hash_client(const struct packet *pkt)
{
	return mix_address(mix(pkt->sport << 16 | pkt->dport, pkt->protocol), &pkt->saddr);
}

/* The backend that every node would choose for this client's port; 0: there is no table. */
static __always_inline __u32 maglev_backend(const struct packet *pkt, const struct lb_service *service)
{
	__u16 index_be = service->rev_nat_index_be;
	void *table = bpf_map_lookup_elem(&cilium_lb4_maglev, &index_be);
	__u32 zero = 0, hash = hash_client(pkt);
	const __u32 *ids;

	if (!table)
		return 0;
	ids = bpf_map_lookup_elem(table, &zero);
	if (!ids)
		return 0;
	hash %= MAGLEV_SIZE;
	/* The verifier does not know what a remainder is. */
	asm volatile("" : "+r"(hash));
	return hash < MAGLEV_SIZE ? ids[hash] : 0;
}

static __always_inline __u32
new_backend(const struct packet *pkt, const struct lb_service *service, __u8 scope, enum caller caller)
{
	__u32 id = 0;

	if (!service->count)
		return 0;
	if (service->flags & SERVICE_AFFINITY)
		id = affine_backend(client_of(pkt, service), pkt->family, service);
	/* Pods always choose at random: only clients outside may come by another node next time. */
	if (!id && caller == CALLER_NETDEV && service->target >> ALGORITHM_SHIFT == ALGORITHM_MAGLEV)
		id = maglev_backend(pkt, service);
	if (!id)
		id = backend_at(pkt, service, scope, finish(hash_client(pkt)));
	return id;
}

static __always_inline void keep_choice(struct ct_entry *entry, const struct packet *pkt, __u32 now)
{
	if (pkt->tcp_flags & (TCP_FIN | TCP_RST))
		entry->flags |= CT_ENTRY_CLOSING;
	if (entry->flags & CT_ENTRY_CLOSING)
		entry->lifetime_s = now + CT_SERVICE_CLOSE_S;
	else
		ct_renew(entry, pkt, now);
}

#define OF_A_PROXY	1	/* as an answer: perhaps a proxy has this connection */
#define ANEW		(1U << 31)	/* beside enum caller, as five parameters are all that a function can have */

/* The backend of this packet's connection; chosen now if there is none, or it is gone. Returns 0 or -DROP_*; unless
 * `anew`, OF_A_PROXY about a connection that exists and was given none.
 */
static __always_inline int
choose(struct packet *pkt, void *map, const void *key, const struct lb_service *service, __u8 scope,
       enum caller caller, bool anew, struct choice *choice)
{
	struct ct_entry *entry = bpf_map_lookup_elem(map, key), first = {};
	__u32 now = now_s(), id;
	long err;

	if (ct_usable(entry, pkt, now) && entry->rev_nat_index_be == service->rev_nat_index_be &&
	    find_backend(entry->rx_bytes, pkt->family, choice) &&
	    (choice->state == BACKEND_ACTIVE || !opens(pkt))) {
		id = entry->rx_bytes;
		keep_choice(entry, pkt, now);
	} else {
		if (!anew && pkt->protocol == IPPROTO_TCP && !opens(pkt))
			return OF_A_PROXY;
		id = new_backend(pkt, service, scope, caller);
		if (!id || !find_backend(id, pkt->family, choice))
			return DROP(pkt, DROP_NO_BACKEND, 0);
		first.rx_bytes = id;
		first.rev_nat_index_be = service->rev_nat_index_be;
		ct_renew(&first, pkt, now);
		err = insert(map, ct_counted(pkt->family, pkt->protocol), key, &first);
		if (err)
			return DROP(pkt, DROP_CT_CREATE_FAILED, err);
	}
	if (service->flags & SERVICE_AFFINITY)
		remember_affinity(client_of(pkt, service), pkt->family, id);
	return 0;
}

/* Not static, as parse_packet(). Returns as choose(). */
__noinline int choose_backend(struct packet *pkt, const struct lb_service *service, __u32 scope, __u32 caller,
			      struct choice *choice)
{
	if (!pkt || !service || !choice)
		return -DROP_INVALID_PACKET;
	if (pkt->family == FAMILY_IPV4) {
		struct ct4_key key = { .daddr = pkt->daddr.ip4, .saddr = pkt->saddr.ip4, .dport = pkt->dport,
				       .sport = pkt->sport, .protocol = pkt->protocol, .flags = CT_SERVICE };

		return choose(pkt, ct_map(pkt->family, pkt->protocol), &key, service, scope, caller & ~ANEW, caller & ANEW, choice);
	} else {
		struct ct6_key key = { .daddr = pkt->daddr, .saddr = pkt->saddr, .dport = pkt->dport,
				       .sport = pkt->sport, .protocol = pkt->protocol, .flags = CT_SERVICE };

		return choose(pkt, ct_map(pkt->family, pkt->protocol), &key, service, scope, caller & ~ANEW, caller & ANEW, choice);
	}
}

/* Remember a connection of a client that is no endpoint here, so that its answers are known. Not static, as
 * parse_packet(). Returns 0 or -DROP_*.
 */
__noinline int track_for_node(struct __sk_buff *skb, struct packet *pkt, __u32 handling)
{
	const struct node_config *config = node_config();
	struct ct_state ct = {};
	int ret;

	if (!pkt)
		return -DROP_INVALID_PACKET;
	if (!config)
		return DROP(pkt, DROP_NO_CONFIG, 0);
	ret = ct_lookup(skb, pkt, CT_EGRESS, config, &ct);
	skb->cb[SERVICE_REASON] = ct.status;
	skb->cb[SERVICE_MONITOR] = ct.monitor;
	if (ret || !ct_is_due(&ct, handling))
		return ret;
	return ct_create(skb, pkt, CT_EGRESS, IDENTITY_UNKNOWN, handling);
}

/* Fills how the connection is to be handled. Returns 0 or -DROP_*, or OF_A_PROXY when one has it. */
static __always_inline int translate(struct __sk_buff *skb, struct packet *pkt, enum caller caller, __u32 *handling)
{
	const struct lb_service *service;
	__u8 scope = SCOPE_EXTERNAL;
	struct choice choice = {};
	int ret;

	ret = parse_packet(skb, pkt);
	if (ret)
		return ret;
	service = find_service(pkt);
	if (service && service->flags2 & SERVICE2_TWO_SCOPES && caller != CALLER_NETDEV) {
		scope = SCOPE_INTERNAL;
		service = service_slot(pkt, pkt->dport, pkt->protocol, scope, 0);
	}
	/* Gone since the caller saw it. */
	if (!service)
		return DROP(pkt, DROP_NO_BACKEND, 0);
	ret = choose_backend(pkt, service, scope, caller, &choice);
	if (ret == OF_A_PROXY) {
		if (has_proxy_socket(skb, pkt))
			return ret;
		ret = choose_backend(pkt, service, scope, caller | ANEW, &choice);
	}
	if (ret)
		return ret;
	*handling = service->rev_nat_index_be << CT_REV_NAT_SHIFT;
	if (caller == CALLER_CONTAINER && same_address(&choice.address, &pkt->saddr)) {
		union addr loopback = loopback_address(pkt->family);

		*handling |= CT_ENTRY_LOOPBACK;
		ret = rewrite_address(skb, pkt, SIDE_SOURCE, &loopback);
		if (ret)
			return ret;
	}
	ret = rewrite_address(skb, pkt, SIDE_DESTINATION, &choice.address);
	if (!ret)
		ret = rewrite_port(skb, pkt, SIDE_DESTINATION, choice.port);
	/* A pod's connection has an entry anyway, made where its packets are judged. */
	return ret || caller == CALLER_CONTAINER ? ret : track_for_node(skb, pkt, *handling | CT_ENTRY_NODE_PORT);
}

/* Send the answer to where the packet has come from. Returns TC_ACT_*. */
static __always_inline int reject(struct __sk_buff *skb, struct packet *pkt, enum caller caller)
{
	const struct node_config *config = node_config();

	if (!config || config->flags & NODE_NO_REJECT || !make_error(skb, pkt, 0))
		return TC_ACT_SHOT;
	if (caller != CALLER_HOST) {
		skb->tc_index = TC_INDEX_DELIVERED;
		return bpf_redirect(skb->ifindex, 0);
	}
	return answer_host(skb, config);
}

/* The proxy that stood for the service when the connection began has it still. Returns TC_ACT_* or -DROP_*. */
static __always_inline int
stay_with_proxy(struct __sk_buff *skb, struct packet *pkt, enum caller caller, const struct drop *client)
{
	const struct node_config *config = node_config();
	struct trace trace = {
		.reason = CT_ESTABLISHED,
		.monitor = MONITOR_DEFAULT,
		.source = client->source,
		.src_identity = client->src_identity,
	};
	struct ct_state ct = {};
	int ret;

	if (!config)
		return DROP(pkt, DROP_NO_CONFIG, 0);
	if (caller != CALLER_HOST) {
		ret = ct_lookup(skb, pkt, caller == CALLER_CONTAINER ? CT_EGRESS : CT_INGRESS, config, &ct);
		if (ret)
			return ret;
		trace.monitor = ct.monitor;
	}
	if (caller != CALLER_CONTAINER)
		trace.source = config->host_endpoint_id;
	return redirect_to_proxy(skb, pkt, config, caller == CALLER_HOST ? AT_EGRESS : AT_INGRESS, &trace);
}

SEC("tc")
int service(struct __sk_buff *skb)
{
	struct packet pkt = { .family = packet_family(skb) };
	__u32 caller = skb->cb[SERVICE_CALLER], asker = skb->cb[SERVICE_SRC_IDENTITY];
	struct drop drop = { .direction = METRIC_EGRESS };
	__u32 ifindex = skb->ifindex, handling = 0;
	const struct interface_info *own;
	int ret;

	ret = translate(skb, &pkt, caller, &handling);
	if (!ret) {
		skb->cb[SERVICE_HANDLING] = handling;
		if (caller != CALLER_CONTAINER)
			skb->tc_index |= TC_INDEX_TRANSLATED;
		bpf_tail_call(skb, &cilium_calls, caller);
		ret = DROP(&pkt, DROP_MISSED_TAIL_CALL, caller);
	}
	own = bpf_map_lookup_elem(&flowscope_interfaces, &ifindex);
	if (own) {
		drop.source = own->endpoint_id;
		drop.src_identity = own->identity;
	} else if (caller != CALLER_CONTAINER) {
		drop.src_identity = asker;
	}
	if (ret == OF_A_PROXY)
		ret = stay_with_proxy(skb, &pkt, caller, &drop);
	if (ret >= 0)
		return ret;
	drop_packet(skb, &pkt, ret, &drop);
	return ret == -DROP_NO_BACKEND ? reject(skb, &pkt, caller) : TC_ACT_SHOT;
}

/* An answer for the node itself, or for a client outside: source translation first, then that of the service. */
static __always_inline int send_back(struct __sk_buff *skb, struct packet *pkt, struct trace *trace)
{
	const struct node_config *config = node_config();
	const struct endpoint_info *local;
	struct ct_state ct = {};
	int ret;

	ret = config ? parse_packet(skb, pkt) : DROP(pkt, DROP_NO_CONFIG, 0);
	if (!ret)
		ret = nat_back(skb, pkt);
	if (ret < 0)
		return ret;
	ret = ct_known_protocol(pkt) ? ct_lookup(skb, pkt, CT_INGRESS, config, &ct) : 0;
	if (ret)
		return ret;
	if (ct.status == CT_REPLY && ct.rev_nat_index_be) {
		/* The pod that answers knows its connection; of another node's pod this node knows it. */
		if (trace->reason == REASON_UNKNOWN) {
			trace->reason = CT_REPLY;
			trace->monitor = ct.monitor;
		}
		trace->orig_ip = pkt->saddr;
		ret = translate_reply(skb, pkt, &ct);
		if (ret)
			return ret;
	}
	if (pkt->icmp_error) {
		ret = translate_error(skb, pkt);
		if (ret)
			return ret;
	}
	local = find_endpoint(&pkt->daddr, pkt->family);
	if (!local) {
		trace->point = TO_NETWORK;
		trace->dst_identity = identity_of(&pkt->daddr, pkt->family);
		trace_packet(skb, config, pkt->family, trace);
		return forward_by_route(skb, pkt);
	}
	trace->point = TO_HOST;
	trace->dst_identity = IDENTITY_HOST;
	trace->ifindex = config->host_ifindex;
	trace_packet(skb, config, pkt->family, trace);
	/* What the node asked for may come; all else is judged there, by whoever has sent it. */
	if (ct.status == CT_REPLY || ct.status == CT_RELATED)
		skb->tc_index |= TC_INDEX_SKIP_HOST;
	else if (config->flags & NODE_HOST_POLICY)
		skb->mark = mark_of(MARK_IDENTITY, identity_for_tunnel(trace->src_identity));
	return to_host(skb, pkt, config);
}

SEC("tc")
int reverse(struct __sk_buff *skb)
{
	struct packet pkt = { .family = packet_family(skb) };
	struct trace trace = {
		.src_identity = skb->cb[REVERSE_SRC_IDENTITY],
		.source = skb->cb[REVERSE_SOURCE],
		.reason = skb->cb[REVERSE_REASON],
		.monitor = skb->cb[REVERSE_MONITOR],
	};
	int ret = send_back(skb, &pkt, &trace);

	return ret >= 0 ? ret : drop_packet(skb, &pkt, ret, &(struct drop){
		.direction = METRIC_EGRESS,
		.source = trace.source,
		.src_identity = trace.src_identity,
	});
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
