/* Source translation: a pod's packet leaves with the node's address, and answers find back.
 *
 * Each connection has two entries: one by the packet as the pod sends it, one by the answer as it arrives. The second
 * is what claims a port, so no two connections to the same destination share one.
 */
#ifndef FLOWSCOPE_NAT_H
#define FLOWSCOPE_NAT_H

#include "conntrack.h"
#include "hash.h"
#include "rewrite.h"

/* Below the ports that the node's own sockets get by themselves (ip_local_port_range) and those of services. */
#define NAT_PORT_MIN	1024
#define NAT_PORT_MAX	29999
#define NAT_TRIES	32

static __always_inline void *nat_map(__u8 family)
{
	return family == FAMILY_IPV4 ? (void *)&cilium_snat_v4_external : (void *)&cilium_snat_v6_external;
}

/* The packet's own tuple. The id of an echo counts as the port of whoever asks. */
static __always_inline struct nat_key nat_key_of(const struct packet *pkt, __u8 direction)
{
	bool echo = is_echo(pkt);

	return (struct nat_key){
		.daddr = pkt->daddr,
		.saddr = pkt->saddr,
		.dport = echo ? pkt->sport : pkt->dport,
		.sport = echo ? pkt->dport : pkt->sport,
		.protocol = pkt->protocol,
		.direction = direction,
	};
}

static __always_inline bool nat_can_translate(const struct packet *pkt)
{
	return pkt->protocol == IPPROTO_TCP || pkt->protocol == IPPROTO_UDP || pkt->protocol == IPPROTO_SCTP || is_echo(pkt);
}

static __always_inline enum counted_map nat_counted(__u8 family)
{
	return family == FAMILY_IPV4 ? COUNTED_NAT4 : COUNTED_NAT6;
}

/* Do answers find back already? Asking keeps their entry from being the one that a full map throws out. */
static __always_inline bool nat_leads_back(const struct packet *pkt, const struct nat_key *in, const struct nat_key *out)
{
	const struct nat_entry *entry = bpf_map_lookup_elem(nat_map(pkt->family), in);

	return entry && entry->port == out->sport && same_address(&entry->address, &out->saddr);
}

/* The port that a connection gets which cannot have its own: the same again if the map has had to forget it. */
static __always_inline __u16 nat_first_port(const struct nat_key *out)
{
	__u32 hash = mix_address(mix_address(out->sport << 16 | out->dport, &out->saddr), &out->daddr);

	return NAT_PORT_MIN + finish(mix(hash, out->protocol)) % (NAT_PORT_MAX - NAT_PORT_MIN + 1);
}

/* Find a port at `to` for answers to this packet, and claim it: `wanted` if it is free. Returns 0: none is. */
static __always_inline __be16
nat_claim_port(const struct packet *pkt, const struct nat_key *out, const union addr *to, __be16 wanted)
{
	struct nat_key in = { .daddr = *to, .saddr = out->daddr, .sport = out->dport, .protocol = out->protocol,
			      .direction = NAT_IN };
	struct nat_entry entry = { .address = out->saddr, .port = out->sport, .created_s = now_s() };
	__u16 port = bpf_ntohs(wanted);
	int i;

	in.dport = wanted;
	if (nat_leads_back(pkt, &in, out))
		return wanted;

	if (port < NAT_PORT_MIN || port > NAT_PORT_MAX)
		port = nat_first_port(out);
	for (i = 0; i < NAT_TRIES; i++) {
		if (i)
			port = NAT_PORT_MIN + bpf_get_prandom_u32() % (NAT_PORT_MAX - NAT_PORT_MIN + 1);
		in.dport = bpf_htons(port);
		if (!insert_new(nat_map(pkt->family), nat_counted(pkt->family), &in, &entry) ||
		    (!i && nat_leads_back(pkt, &in, out)))
			return in.dport;
	}
	return 0;
}

/* Let the packet leave with `to` as its source. Returns 0 or -DROP_*. */
static __always_inline int nat_out(struct __sk_buff *skb, struct packet *pkt, const union addr *to)
{
	struct nat_entry entry = { .address = *to, .created_s = now_s() };
	struct nat_key key = nat_key_of(pkt, NAT_OUT);
	const struct nat_entry *known;
	__be16 wanted;
	int ret;

	if (!nat_can_translate(pkt))
		return DROP(pkt, DROP_NAT_UNSUPPORTED, 0);
	if (is_unspecified(to))
		return DROP(pkt, DROP_NAT_NO_MAPPING, 0);
	known = bpf_map_lookup_elem(nat_map(pkt->family), &key);
	wanted = known && same_address(&known->address, to) ? known->port : key.sport;
	/* Either half may have had to give way in a full map: what is left of them says what the other was. */
	entry.port = nat_claim_port(pkt, &key, to, wanted);
	if (!entry.port)
		return DROP(pkt, DROP_NAT_NO_MAPPING, 0);
	if ((!known || wanted != entry.port || !same_address(&known->address, to)) &&
	    insert(nat_map(pkt->family), nat_counted(pkt->family), &key, &entry))
		return DROP(pkt, DROP_NAT_NO_MAPPING, 0);
	ret = rewrite_address(skb, pkt, SIDE_SOURCE, to);
	return ret ? ret : rewrite_port(skb, pkt, SIDE_SOURCE, entry.port);
}

/* The same for an ICMP error about what has left: it quotes the packet as translated. Not static, as parse_packet().
 * Returns 1: done, 0: nobody waits for it, or -DROP_*.
 */
__noinline int nat_error_back(struct __sk_buff *skb, struct packet *pkt)
{
	const struct nat_entry *known;
	struct inner inner = {};
	struct nat_key key = { .direction = NAT_IN };
	__be16 port;
	int ret;

	if (!pkt)
		return -DROP_INVALID_PACKET;
	if (!load_inner(skb, pkt, &inner))
		return 0;
	key.daddr = pkt->inner_saddr;
	key.saddr = pkt->inner_daddr;
	/* As nat_key_of(): the id of an echo counts as the port of whoever asked. */
	key.dport = inner.echo ? inner.dport : inner.sport;
	key.sport = inner.echo ? inner.sport : inner.dport;
	key.protocol = inner.protocol;
	known = bpf_map_lookup_elem(nat_map(pkt->family), &key);
	if (!known)
		return 0;
	key.saddr = known->address;
	port = known->port;
	ret = rewrite_address(skb, pkt, SIDE_DESTINATION, &key.saddr);
	if (!ret)
		ret = rewrite_inner(skb, pkt, &inner, SIDE_SOURCE, &key.saddr, port);
	return ret ? ret : 1;
}

/* Give an answer its real destination back. Returns 1: done, 0: nobody waits for it, or -DROP_*. */
static __always_inline int nat_back(struct __sk_buff *skb, struct packet *pkt)
{
	struct nat_key key = nat_key_of(pkt, NAT_IN);
	const struct nat_entry *known;
	union addr address;
	__be16 port;
	int ret;

	if (unlikely(pkt->icmp_error))
		return nat_error_back(skb, pkt);
	if (!nat_can_translate(pkt))
		return 0;
	known = bpf_map_lookup_elem(nat_map(pkt->family), &key);
	if (!known)
		return 0;
	address = known->address;
	port = known->port;
	ret = rewrite_address(skb, pkt, SIDE_DESTINATION, &address);
	if (!ret)
		ret = rewrite_port(skb, pkt, SIDE_DESTINATION, port);
	return ret ? ret : 1;
}

/* The node's address in a family, for what leaves it; unspecified: there is none. */
static __always_inline const union addr *masquerade_address(const struct node_config *config, __u8 family)
{
	return family == FAMILY_IPV4 ? &config->masquerade4 : &config->masquerade6;
}

static __always_inline bool is_masquerade_address(const struct node_config *config, const struct packet *pkt)
{
	return same_address(&pkt->daddr, masquerade_address(config, pkt->family));
}

#endif
