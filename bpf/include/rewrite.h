/* Changing addresses and ports of a packet, with every checksum that covers them. `struct packet` changes with it. */
#ifndef FLOWSCOPE_REWRITE_H
#define FLOWSCOPE_REWRITE_H

#include "crc32c.h"

enum side {
	SIDE_SOURCE,
	SIDE_DESTINATION,
};

/* Where the transport's checksum stands, from the transport header on; 0: it has none that covers addresses. */
static __always_inline __u32 checksum_over_addresses(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_ICMPV6:
		return 2;
	}
	return 0;			/* ICMP sums only itself, SCTP has a CRC of itself */
}

/* A UDP checksum of 0 means that there is none, and stays. */
static __always_inline __u64 checksum_flags(__u8 protocol)
{
	return protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

/* Put another IPv4 address at `offset` of the IP header at `ip`. Returns 0 or -DROP_*. */
static __always_inline int
rewrite_address4(struct __sk_buff *skb, struct packet *pkt, enum side side, __be32 to)
{
	__u32 at = ETH_HLEN + (side == SIDE_SOURCE ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));
	__u32 check = checksum_over_addresses(pkt->protocol);
	__be32 from = side == SIDE_SOURCE ? pkt->saddr.ip4 : pkt->daddr.ip4;

	if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), from, to, sizeof(to)))
		return DROP(pkt, DROP_CSUM_L3, 0);
	if (check && !pkt->no_ports &&
	    bpf_l4_csum_replace(skb, pkt->l4_offset + check, from, to,
				sizeof(to) | BPF_F_PSEUDO_HDR | checksum_flags(pkt->protocol)))
		return DROP(pkt, DROP_CSUM_L4, 0);
	if (bpf_skb_store_bytes(skb, at, &to, sizeof(to), 0))
		return DROP(pkt, DROP_WRITE_ERROR, 0);
	if (side == SIDE_SOURCE)
		pkt->saddr.ip4 = to;
	else
		pkt->daddr.ip4 = to;
	return 0;
}

static __always_inline int
rewrite_address6(struct __sk_buff *skb, struct packet *pkt, enum side side, const union addr *to)
{
	__u32 at = ETH_HLEN + (side == SIDE_SOURCE ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
	__u32 check = checksum_over_addresses(pkt->protocol);
	union addr *from = side == SIDE_SOURCE ? &pkt->saddr : &pkt->daddr;

	if (check && !pkt->no_ports) {
		__s64 difference = bpf_csum_diff(from->ip6, sizeof(*from), (__be32 *)to->ip6, sizeof(*to), 0);

		if (bpf_l4_csum_replace(skb, pkt->l4_offset + check, 0, difference,
					BPF_F_PSEUDO_HDR | checksum_flags(pkt->protocol)))
			return DROP(pkt, DROP_CSUM_L4, 0);
	}
	if (bpf_skb_store_bytes(skb, at, to, sizeof(*to), 0))
		return DROP(pkt, DROP_WRITE_ERROR, 0);
	*from = *to;
	return 0;
}

/* Another address on one side. Returns 0 or -DROP_*. */
static __always_inline int
rewrite_address(struct __sk_buff *skb, struct packet *pkt, enum side side, const union addr *to)
{
	if (pkt->family == FAMILY_IPV4)
		return rewrite_address4(skb, pkt, side, to->ip4);
	return rewrite_address6(skb, pkt, side, to);
}

static __always_inline bool is_echo(const struct packet *pkt)
{
	if (pkt->protocol == IPPROTO_ICMP)
		return pkt->icmp_type == ICMP_ECHO_REQUEST || pkt->icmp_type == ICMP_ECHO_REPLY;
	return pkt->protocol == IPPROTO_ICMPV6 &&
	       (pkt->icmp_type == ICMP6_ECHO_REQUEST || pkt->icmp_type == ICMP6_ECHO_REPLY);
}

/* Another port on one side; of an echo, another id, on whichever side. Returns 0 or -DROP_*. */
static __always_inline int rewrite_port(struct __sk_buff *skb, struct packet *pkt, enum side side, __be16 to)
{
	__u32 at = pkt->l4_offset + (is_echo(pkt) ? 4 : side == SIDE_SOURCE ? 0 : 2), check;
	enum side held = side;
	__be16 from;

	if (is_echo(pkt) && !(side == SIDE_SOURCE ? pkt->sport : pkt->dport))
		held = side == SIDE_SOURCE ? SIDE_DESTINATION : SIDE_SOURCE;
	from = held == SIDE_SOURCE ? pkt->sport : pkt->dport;
	if (from == to)
		return 0;
	if (held == SIDE_SOURCE)
		pkt->sport = to;
	else
		pkt->dport = to;
	if (pkt->no_ports)
		return 0;
	if (pkt->protocol == IPPROTO_SCTP)
		return rewrite_sctp_port(skb, pkt, side == SIDE_DESTINATION, to);
	check = pkt->protocol == IPPROTO_ICMP ? 2 : checksum_over_addresses(pkt->protocol);
	if (bpf_l4_csum_replace(skb, pkt->l4_offset + check, from, to, sizeof(to) | checksum_flags(pkt->protocol)))
		return DROP(pkt, DROP_CSUM_L4, 0);
	if (bpf_skb_store_bytes(skb, at, &to, sizeof(to), 0))
		return DROP(pkt, DROP_WRITE_ERROR, 0);
	return 0;
}

struct inner {				/* of the packet inside an ICMP error, what its addresses do not say */
	__u32	offset;			/* of its transport header */
	__be16	sport;			/* an echo's id stands where `struct packet` has it, too */
	__be16	dport;
	__u8	protocol;
	bool	echo;
};

/* The id of an echo inside an ICMP error; false: it is something else of ICMP. */
static __always_inline bool load_inner_echo(struct __sk_buff *skb, struct inner *inner)
{
	__u8 type;

	if (bpf_skb_load_bytes(skb, inner->offset, &type, 1))
		return false;
	inner->echo = true;
	if (type == (inner->protocol == IPPROTO_ICMP ? ICMP_ECHO_REQUEST : ICMP6_ECHO_REQUEST))
		return !bpf_skb_load_bytes(skb, inner->offset + 4, &inner->dport, 2);
	if (type == (inner->protocol == IPPROTO_ICMP ? ICMP_ECHO_REPLY : ICMP6_ECHO_REPLY))
		return !bpf_skb_load_bytes(skb, inner->offset + 4, &inner->sport, 2);
	return false;
}

/* False: there is not enough of it, or it is of no use. */
static __always_inline bool load_inner(struct __sk_buff *skb, const struct packet *pkt, struct inner *inner)
{
	__u32 ip = pkt->l4_offset + 8;
	__u8 first;

	if (pkt->family == FAMILY_IPV4) {
		if (bpf_skb_load_bytes(skb, ip, &first, 1) ||
		    bpf_skb_load_bytes(skb, ip + offsetof(struct iphdr, protocol), &inner->protocol, 1))
			return false;
		inner->offset = ip + (first & 0xF) * 4;
	} else {
		if (bpf_skb_load_bytes(skb, ip + offsetof(struct ipv6hdr, nexthdr), &inner->protocol, 1))
			return false;
		inner->offset = ip + sizeof(struct ipv6hdr);
	}
	if (inner->protocol == (pkt->family == FAMILY_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return load_inner_echo(skb, inner);
	if (inner->protocol != IPPROTO_TCP && inner->protocol != IPPROTO_UDP && inner->protocol != IPPROTO_SCTP)
		return false;
	return !bpf_skb_load_bytes(skb, inner->offset, &inner->sport, 2) &&
	       !bpf_skb_load_bytes(skb, inner->offset + 2, &inner->dport, 2);
}

/* Another address and port on one side of the packet inside an ICMP error; of an echo, another id. The transport's
 * checksum in it stays: it is cut off as often as not, and nobody looks. Returns 0 or -DROP_*.
 */
static __always_inline int rewrite_inner(struct __sk_buff *skb, struct packet *pkt, const struct inner *inner,
					 enum side side, const union addr *to, __be16 port)
{
	__u32 ip = pkt->l4_offset + 8, sum = pkt->l4_offset + 2;
	union addr *from = side == SIDE_SOURCE ? &pkt->inner_saddr : &pkt->inner_daddr;
	__be16 from_port = side == SIDE_SOURCE ? inner->sport : inner->dport;
	__u32 port_at = inner->offset + (inner->echo ? 4 : side == SIDE_SOURCE ? 0 : 2);
	long err;

	if (inner->echo)
		from_port = inner->dport ? inner->dport : inner->sport;

	if (pkt->family == FAMILY_IPV4) {
		__u32 at = ip + (side == SIDE_SOURCE ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));

		/* Address and header checksum change by the same, so the sum over both does not. */
		err = bpf_l3_csum_replace(skb, ip + offsetof(struct iphdr, check), from->ip4, to->ip4, 4);
		err |= bpf_skb_store_bytes(skb, at, to, 4, 0);
	} else {
		__u32 at = ip + (side == SIDE_SOURCE ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
		__s64 difference = bpf_csum_diff(from->ip6, sizeof(*from), (__be32 *)to->ip6, sizeof(*to), 0);

		err = bpf_l4_csum_replace(skb, sum, 0, difference, 0);
		err |= bpf_skb_store_bytes(skb, at, to, sizeof(*to), 0);
	}
	err |= bpf_l4_csum_replace(skb, sum, from_port, port, sizeof(port));
	err |= bpf_skb_store_bytes(skb, port_at, &port, sizeof(port), 0);
	*from = *to;
	return err ? DROP(pkt, DROP_WRITE_ERROR, 0) : 0;
}

#endif
