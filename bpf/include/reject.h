/* Telling a sender that its packet goes no further: it goes back inside an ICMP error. Port unreachable, so that a
 * client of a service that nobody serves need not wait; or how much fits into the tunnel.
 */
#ifndef FLOWSCOPE_REJECT_H
#define FLOWSCOPE_REJECT_H

#include "rewrite.h"

#define REJECT_TTL	64
#define UDP_QUOTE	8		/* what is quoted of a transport header: all that a socket is found by, and as */
#define TCP_QUOTE	20		/* much as the kernel lets a packet with a checksum to be filled in be cut down to */
#define ICMP_HEADER	8

struct icmp_error {
	__u8	type;
	__u8	code;
	__be16	checksum;
	__be32	mtu;			/* of an error about size; else 0 */
};
_Static_assert(sizeof(struct icmp_error) == ICMP_HEADER, "as on the wire");

/* Sum over the first `size` bytes behind the Ethernet header, added to `sum`; below 0: they are not there. */
static __always_inline __s64 sum_quote(struct __sk_buff *skb, __u32 ip_size, bool tcp, __s64 sum)
{
	__be32 quote[(sizeof(struct ipv6hdr) + TCP_QUOTE) / 4] = {};

	if (ip_size == sizeof(struct iphdr)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, quote, sizeof(struct iphdr) + UDP_QUOTE) ||
		    (tcp && bpf_skb_load_bytes(skb, ETH_HLEN, quote, sizeof(struct iphdr) + TCP_QUOTE)))
			return -1;
	} else if (bpf_skb_load_bytes(skb, ETH_HLEN, quote, sizeof(struct ipv6hdr) + UDP_QUOTE) ||
		   (tcp && bpf_skb_load_bytes(skb, ETH_HLEN, quote, sizeof(quote)))) {
		return -1;
	}
	/* What is not quoted is zero here, and adds nothing. */
	return bpf_csum_diff(NULL, 0, quote, sizeof(quote), sum);
}

static __always_inline long reject4(struct __sk_buff *skb, const struct packet *pkt, const struct icmp_error *icmp,
				    __u32 size)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(size),
		.ttl = REJECT_TTL,
		.protocol = IPPROTO_ICMP,
		.saddr = pkt->daddr.ip4,
		.daddr = pkt->saddr.ip4,
	};
	long err;

	ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	err = bpf_skb_adjust_room(skb, sizeof(ip) + ICMP_HEADER, BPF_ADJ_ROOM_MAC, 0);
	if (!err)
		err = bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
	return err ? err : bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), icmp, sizeof(*icmp), 0);
}

static __always_inline long reject6(struct __sk_buff *skb, const struct packet *pkt, const struct icmp_error *icmp,
				    __u32 size)
{
	struct ipv6hdr ip = {
		.version = 6,
		.payload_len = bpf_htons(size - sizeof(ip)),
		.nexthdr = IPPROTO_ICMPV6,
		.hop_limit = REJECT_TTL,
	};
	long err;

	memcpy(&ip.saddr, &pkt->daddr, sizeof(ip.saddr));
	memcpy(&ip.daddr, &pkt->saddr, sizeof(ip.daddr));
	err = bpf_skb_adjust_room(skb, sizeof(ip) + ICMP_HEADER, BPF_ADJ_ROOM_MAC, 0);
	if (!err)
		err = bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
	return err ? err : bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), icmp, sizeof(*icmp), 0);
}

/* What an error can be made of: what every client sends, without options or extensions, whole. */
static __always_inline bool can_quote(const struct packet *pkt)
{
	__u32 ip_size = pkt->family == FAMILY_IPV4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	return (pkt->protocol == IPPROTO_TCP || pkt->protocol == IPPROTO_UDP || is_echo(pkt)) && !pkt->no_ports &&
	       pkt->l4_offset == ETH_HLEN + ip_size;
}

#define ERROR_PROHIBITED	0xFFFFFFFF

/* Make the packet the answer to itself: that no more than `mtu` fits; or if that is 0, that nobody is there; or
 * ERROR_PROHIBITED, that it may not go there.
 * False: the packet is one that cannot be quoted, or none any more; it is of no use. Not static, as parse_packet().
 */
__noinline int make_error(struct __sk_buff *skb, struct packet *pkt, __u32 mtu)
{
	bool prohibited = mtu == ERROR_PROHIBITED;
	struct icmp_error icmp = { .mtu = prohibited ? 0 : bpf_htonl(mtu) };
	__u32 ip_size, quoted;
	__u8 macs[2 * ETH_ALEN];
	__s64 sum = 0;
	bool tcp;

	if (!pkt)
		return false;
	tcp = pkt->protocol == IPPROTO_TCP;
	ip_size = pkt->family == FAMILY_IPV4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	if (!can_quote(pkt))
		return false;
	quoted = ip_size + (tcp ? TCP_QUOTE : UDP_QUOTE);
	if (pkt->family == FAMILY_IPV4) {
		icmp.type = ICMP_UNREACHABLE;
		icmp.code = prohibited ? ICMP_PROHIBITED : mtu ? ICMP_FRAGMENTATION_NEEDED : ICMP_PORT_UNREACHABLE;
	} else {
		__be32 pseudo[] = { bpf_htonl(ICMP_HEADER + quoted), bpf_htonl(IPPROTO_ICMPV6) };

		icmp.type = mtu && !prohibited ? ICMP6_PACKET_TOO_BIG : ICMP6_UNREACHABLE;
		icmp.code = prohibited ? ICMP6_PROHIBITED : mtu ? 0 : ICMP6_PORT_UNREACHABLE;
		sum = bpf_csum_diff(NULL, 0, pkt->saddr.ip6, sizeof(pkt->saddr), sum);
		sum = bpf_csum_diff(NULL, 0, pkt->daddr.ip6, sizeof(pkt->daddr), sum);
		sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), sum);
	}
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&icmp, sizeof(icmp), sum);
	sum = sum_quote(skb, ip_size, tcp, sum);
	if (sum < 0 || bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) ||
	    bpf_skb_change_tail(skb, ETH_HLEN + quoted, 0))
		return false;
	icmp.checksum = fold(sum);
	if (pkt->family == FAMILY_IPV4 ? reject4(skb, pkt, &icmp, sizeof(struct iphdr) + ICMP_HEADER + quoted) :
					 reject6(skb, pkt, &icmp, sizeof(struct ipv6hdr) + ICMP_HEADER + quoted))
		return false;
	return !bpf_skb_store_bytes(skb, 0, macs + ETH_ALEN, ETH_ALEN, 0) &&
	       !bpf_skb_store_bytes(skb, ETH_ALEN, macs, ETH_ALEN, 0);
}

#endif
