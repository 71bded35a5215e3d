/* Backends of a service, and who is to have which: for packets (tail_service.bpf.c) and sockets (cgroup_sock.bpf.c). */
#ifndef FLOWSCOPE_BACKENDS_H
#define FLOWSCOPE_BACKENDS_H

#include "services.h"

struct choice {
	union addr address;
	__be16	port;
	__u8	state;			/* enum backend_state */
};

static __always_inline bool find_backend(__u32 id, __u8 family, struct choice *choice)
{
	if (family == FAMILY_IPV4) {
		const struct lb4_backend *backend = bpf_map_lookup_elem(&cilium_lb4_backends_v3, &id);

		if (!backend)
			return false;
		memset(&choice->address, 0, sizeof(choice->address));
		choice->address.ip4 = backend->address;
		choice->port = backend->port;
		choice->state = backend->state;
	} else {
		const struct lb6_backend *backend = bpf_map_lookup_elem(&cilium_lb6_backends_v3, &id);

		if (!backend)
			return false;
		choice->address = backend->address;
		choice->port = backend->port;
		choice->state = backend->state;
	}
	return true;
}

static __always_inline void *affinity_map(__u8 family)
{
	return family == FAMILY_IPV4 ? (void *)&cilium_lb4_affinity : (void *)&cilium_lb6_affinity;
}

/* The backend a client had, if that is not too long ago and the service still has it; else 0. */
static __always_inline __u32 affine_backend(struct affinity_key client, __u8 family, const struct lb_service *service)
{
	const struct affinity_value *last = bpf_map_lookup_elem(affinity_map(family), &client);
	struct affinity_match match = { .rev_nat_index_be = service->rev_nat_index_be };

	if (!last || last->last_used_s + (service->target & AFFINITY_TIMEOUT_MASK) <= now_s())
		return 0;
	match.backend_id = last->backend_id;
	return bpf_map_lookup_elem(&cilium_lb_affinity_match, &match) ? last->backend_id : 0;
}

static __always_inline void remember_affinity(struct affinity_key client, __u8 family, __u32 backend)
{
	enum counted_map counted = family == FAMILY_IPV4 ? COUNTED_AFFINITY4 : COUNTED_AFFINITY6;
	struct affinity_value value = { .last_used_s = now_s(), .backend_id = backend };
	struct affinity_value *known = bpf_map_lookup_elem(affinity_map(family), &client);

	if (known)
		*known = value;
	else
		insert(affinity_map(family), counted, &client, &value);
}

/* One of the service's backends, by any number. */
static __always_inline __u32
backend_at(const struct packet *pkt, const struct lb_service *service, __u8 scope, __u32 number)
{
	const struct lb_service *slot;

	slot = service_slot(pkt, pkt->dport, pkt->protocol, scope, number % service->count + 1);
	/* The last slots went away just now; the first is there while there are any. */
	if (!slot)
		slot = service_slot(pkt, pkt->dport, pkt->protocol, scope, 1);
	return slot ? slot->target : 0;
}

#endif
