/* Services for processes of the node itself: the socket is led to a backend before there is a packet.
 *
 * Programs of a cgroup, at connect, sendmsg, recvmsg and getpeername. What a process asked for stands in
 * cilium_lb_reverse_sk, so that it hears from the address it knows. Sockets of pods are left alone even when their
 * processes are in the cgroup: on the packet's way flows show the cluster's addresses, and policy sees who asks.
 */
#include "backends.h"
#include "events.h"
#include "lookup.h"

#define PASS		1
#define REFUSE		0
#define EPERM		1
#define EHOSTUNREACH	113
#define LOOPBACK4	bpf_htonl(0x7F000001)
#define MAPPED_PREFIX	bpf_htonl(0xFFFF)	/* third word of an IPv4 address in an IPv6 one */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct socket_config);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} flowscope_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct reverse_socket_key);
	__type(value, struct reverse_socket);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_lb_reverse_sk SEC(".maps");

struct {				/* when a socket was reported last: coarse monotonic seconds */
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} socket_reports SEC(".maps");

static __always_inline const struct socket_config *socket_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&flowscope_sockets, &zero);
}

enum call_of {
	CONNECT,
	SENDMSG,
	RECEIVE,			/* recvmsg and getpeername */
};

/* The address in the call as a packet to look services up with; false: none that is ours to change. `six` is known
 * when the program is built: the kernel lets a program see the words of its own family only.
 */
static __always_inline bool read_address(const struct bpf_sock_addr *ctx, bool six, struct packet *pkt)
{
	const struct socket_config *config = socket_config();

	if (!config || bpf_get_netns_cookie((void *)ctx) != config->netns_cookie)
		return false;
	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return false;
	pkt->protocol = ctx->protocol;
	pkt->dport = ctx->user_port;
	if (!six) {
		pkt->family = FAMILY_IPV4;
		pkt->daddr.ip4 = ctx->user_ip4;
		return true;
	}
	pkt->family = FAMILY_IPV6;
	pkt->daddr.ip6[0] = ctx->user_ip6[0];
	pkt->daddr.ip6[1] = ctx->user_ip6[1];
	pkt->daddr.ip6[2] = ctx->user_ip6[2];
	pkt->daddr.ip6[3] = ctx->user_ip6[3];
	if (!pkt->daddr.ip6[0] && !pkt->daddr.ip6[1] && pkt->daddr.ip6[2] == MAPPED_PREFIX) {
		pkt->family = FAMILY_IPV4;
		pkt->daddr.ip6[0] = pkt->daddr.ip6[3];
		pkt->daddr.ip6[2] = pkt->daddr.ip6[3] = 0;
	}
	return true;
}

static __always_inline void
write_address(struct bpf_sock_addr *ctx, bool six, __u8 family, const union addr *address, __be16 port)
{
	ctx->user_port = port;
	if (!six) {
		ctx->user_ip4 = address->ip4;
	} else if (family == FAMILY_IPV4) {
		ctx->user_ip6[3] = address->ip4;
	} else {
		ctx->user_ip6[0] = address->ip6[0];
		ctx->user_ip6[1] = address->ip6[1];
		ctx->user_ip6[2] = address->ip6[2];
		ctx->user_ip6[3] = address->ip6[3];
	}
}

/* Is a translation told at this level? Decided once for both of its events. */
static __always_inline bool is_told(struct bpf_sock_addr *ctx, enum call_of call)
{
	const struct node_config *config = node_config();
	__u32 now = now_s(), *last;

	if (!config)
		return false;
	if (call == RECEIVE)
		return config->aggregation < AGGREGATE_LOWEST;
	if (config->aggregation < AGGREGATE_MEDIUM)
		return true;
	if (call != CONNECT || !ctx->sk)
		return false;
	last = bpf_sk_storage_get(&socket_reports, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!last || (*last && now - *last < config->monitor_interval_s))
		return false;
	*last = now;
	return true;
}

static __always_inline void
tell(struct bpf_sock_addr *ctx, enum xlate_point point, const struct packet *pkt, const union addr *address,
     __be16 port)
{
	const struct socket_config *config = socket_config();
	struct trace_sock_notify event = {
		.type = MESSAGE_TRACE_SOCK,
		.xlate_point = point,
		.l4_proto = pkt->protocol == IPPROTO_TCP ? 1 : 2,
		.flags = pkt->family == FAMILY_IPV6 ? EVENT_FLAG_IPV6 : 0,
		.dst_port = bpf_ntohs(port),
		.sock_cookie = bpf_get_socket_cookie(ctx),
		.cgroup_id = config ? config->cgroup_id : 0,
		.dst_ip = *address,
	};

	send_event(ctx, &event, sizeof(event), 0);
}

static __always_inline int refuse(int error)
{
	bpf_set_retval(-error);
	return REFUSE;
}

static __always_inline void remember(struct bpf_sock_addr *ctx, const struct packet *asked, const union addr *address,
				     __be16 port, __be16 rev_nat_index_be)
{
	struct reverse_socket_key key = { .cookie = bpf_get_socket_cookie(ctx), .address = *address, .port = port,
					  .family = asked->family };
	struct reverse_socket value = { .address = asked->daddr, .port = asked->dport,
					.rev_nat_index_be = rev_nat_index_be };

	bpf_map_update_elem(&cilium_lb_reverse_sk, &key, &value, BPF_ANY);
}

/* The backend for this call; 0: there is none. The client is the node: its namespace's cookie stands for it. */
static __always_inline __u32
backend_for_node(struct bpf_sock_addr *ctx, const struct packet *pkt, const struct lb_service *service, __u8 scope)
{
	struct affinity_key client = { .rev_nat_index_be = service->rev_nat_index_be, .netns_cookie = 1 };
	__u64 cookie;
	__u32 id = 0;

	if (!service->count)
		return 0;
	if (!(service->flags & SERVICE_AFFINITY))
		return backend_at(pkt, service, scope, bpf_get_prandom_u32());
	cookie = bpf_get_netns_cookie(ctx);
	client.client.ip6[0] = cookie;
	client.client.ip6[1] = cookie >> 32;
	id = affine_backend(client, pkt->family, service);
	if (!id)
		id = backend_at(pkt, service, scope, bpf_get_prandom_u32());
	if (id)
		remember_affinity(client, pkt->family, id);
	return id;
}

/* Nobody but a node that has the address may be led away from it: anybody can write any address into a service. */
static __always_inline bool is_foreign(const struct packet *pkt, const struct lb_service *service)
{
	const struct endpoint_info *own;

	if (!(service->flags & SERVICE_EXTERNAL_IP))
		return false;
	own = find_endpoint(&pkt->daddr, pkt->family);
	return !own || !(own->flags & ENDPOINT_HOST);
}

/* What a process asks for becomes what it gets. Returns PASS or REFUSE. */
static __always_inline int ask(struct bpf_sock_addr *ctx, bool six, enum call_of call)
{
	struct packet pkt = {};
	const struct lb_service *service;
	__u8 scope = SCOPE_EXTERNAL;
	struct choice choice = {};
	__be16 proxy_port_be;
	bool told;

	if (!read_address(ctx, six, &pkt))
		return PASS;
	service = find_service(&pkt);
	if (service && service->flags2 & SERVICE2_TWO_SCOPES) {
		scope = SCOPE_INTERNAL;
		service = service_slot(&pkt, pkt.dport, pkt.protocol, scope, 0);
	}
	if (!service)
		return PASS;
	if (is_foreign(&pkt, service))
		return refuse(EPERM);
	told = is_told(ctx, call);
	if (told)
		tell(ctx, PRE_XLATE_FWD, &pkt, &pkt.daddr, pkt.dport);
	proxy_port_be = service_proxy_port(service);
	if (proxy_port_be) {
		choice.port = proxy_port_be;
		if (pkt.family == FAMILY_IPV4)
			choice.address.ip4 = LOOPBACK4;
		else
			choice.address.ip6[3] = bpf_htonl(1);
	} else if (!find_backend(backend_for_node(ctx, &pkt, service, scope), pkt.family, &choice)) {
		return refuse(EHOSTUNREACH);
	}
	remember(ctx, &pkt, &choice.address, choice.port, service->rev_nat_index_be);
	write_address(ctx, six, pkt.family, &choice.address, choice.port);
	if (told)
		tell(ctx, POST_XLATE_FWD, &pkt, &choice.address, choice.port);
	return PASS;
}

/* Where an answer comes from becomes what the process had asked for. */
static __always_inline int hear(struct bpf_sock_addr *ctx, bool six)
{
	struct reverse_socket_key key = {};
	struct packet pkt = {};
	const struct reverse_socket *asked;
	struct reverse_socket found;
	union addr now;
	__be16 port;
	bool told;

	if (!read_address(ctx, six, &pkt))
		return PASS;
	key.cookie = bpf_get_socket_cookie(ctx);
	key.address = pkt.daddr;
	key.port = pkt.dport;
	key.family = pkt.family;
	asked = bpf_map_lookup_elem(&cilium_lb_reverse_sk, &key);
	if (!asked)
		return PASS;
	found = *asked;
	/* A service that is gone, or another one under its number: nobody is to take the answer for its own. */
	if (!reverse_nat(found.rev_nat_index_be, pkt.family, &now, &port) || port != found.port ||
	    !same_address(&now, &found.address)) {
		bpf_map_delete_elem(&cilium_lb_reverse_sk, &key);
		return PASS;
	}
	told = is_told(ctx, RECEIVE);
	if (told)
		tell(ctx, PRE_XLATE_REV, &pkt, &pkt.daddr, pkt.dport);
	write_address(ctx, six, pkt.family, &found.address, found.port);
	if (told)
		tell(ctx, POST_XLATE_REV, &pkt, &found.address, found.port);
	return PASS;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return ask(ctx, false, CONNECT);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return ask(ctx, true, CONNECT);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return ask(ctx, false, SENDMSG);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return ask(ctx, true, SENDMSG);
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return hear(ctx, false);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return hear(ctx, true);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return hear(ctx, false);
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	return hear(ctx, true);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
