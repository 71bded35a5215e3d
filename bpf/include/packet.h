/* From bytes to what the programs decide on: family, addresses, ports, TCP flags; and why it could not be read. */
#ifndef FLOWSCOPE_PACKET_H
#define FLOWSCOPE_PACKET_H

#include "counting.h"
#include "drops.h"
#include "maps.h"

struct packet {
	union addr saddr;
	union addr daddr;
	/* Of the packet inside an ICMP error: the connection it is about. */
	union addr inner_saddr;
	union addr inner_daddr;
	__be16	sport;			/* ICMP echo: the id stands here in replies, in dport in requests */
	__be16	dport;
	__u16	l4_offset;
	__u16	drop_line;
	__u8	drop_file;
	__s8	drop_ext;
	__u8	family;			/* enum family */
	__u8	protocol;		/* of the transport, behind IPv6 extension headers */
	__u8	ttl;
	__u8	tcp_flags;		/* FIN to CWR, as in the header */
	__u8	icmp_type;
	__u8	icmp_code;
	bool	icmp_error;
	bool	no_ports;		/* a later fragment: the transport header is elsewhere */
};

#define TCP_FIN	0x01
#define TCP_SYN	0x02
#define TCP_RST	0x04
#define TCP_ACK	0x10

#define IP4_FRAGMENT_OFFSET	0x1FFF
#define IP4_MORE_FRAGMENTS	0x2000
#define IP6_MAX_EXTENSIONS	4

static __always_inline bool same_address(const union addr *a, const union addr *b)
{
	return a->ip6[0] == b->ip6[0] && a->ip6[1] == b->ip6[1] && a->ip6[2] == b->ip6[2] && a->ip6[3] == b->ip6[3];
}

static __always_inline bool is_unspecified(const union addr *a)
{
	return !(a->ip6[0] | a->ip6[1] | a->ip6[2] | a->ip6[3]);
}

/* What bpf_csum_diff() returns, as it stands in a header. */
static __always_inline __be16 fold(__s64 sum)
{
	sum = (sum & 0xFFFF) + (sum >> 16 & 0xFFFF);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return ~sum;
}

struct l4_head {			/* the part of any transport header that is read here */
	union {
		struct {
			__be16	sport;
			__be16	dport;
		};
		struct {
			__u8	icmp_type;
			__u8	icmp_code;
			__be16	icmp_checksum;
		};
	};
	__be16	word2;			/* ICMP echo: id */
	__be16	word3;
	__be32	word4;
	__u8	tcp_offset;
	__u8	tcp_flags;
};

/* Make the first `need` bytes readable through skb->data. Packet pointers taken earlier are void afterwards. */
static __always_inline bool pull(struct __sk_buff *skb, __u32 need)
{
	if ((void *)(long)skb->data + need <= (void *)(long)skb->data_end)
		return true;
	return need <= skb->len && !bpf_skb_pull_data(skb, need);
}

static __always_inline bool is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_FRAGMENT ||
	       protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_AH;
}

/* Ports of a fragmented datagram: the first fragment leaves them for the others. */
static __always_inline int fragment_ports(struct packet *pkt, __u32 id, bool first)
{
	struct fragment_key key = { .saddr = pkt->saddr, .daddr = pkt->daddr, .id = id, .protocol = pkt->protocol };
	struct fragment_ports ports = { .sport = pkt->sport, .dport = pkt->dport };
	struct fragment_ports *known;

	if (first) {
		insert(&cilium_fragments, COUNTED_FRAGMENTS, &key, &ports);
		return 0;
	}
	known = bpf_map_lookup_elem(&cilium_fragments, &key);
	if (!known)
		return DROP(pkt, DROP_FRAGMENT_NOT_FOUND, 0);
	pkt->sport = known->sport;
	pkt->dport = known->dport;
	return 0;
}

/* Addresses of the IP packet inside an ICMP error, which starts 8 bytes into the ICMP header. */
static __always_inline int parse_icmp_error(struct __sk_buff *skb, struct packet *pkt)
{
	__u32 inner = pkt->l4_offset + 8;
	long err;

	pkt->icmp_error = true;
	pkt->sport = pkt->dport = 0;
	if (pkt->family == FAMILY_IPV4) {
		err = bpf_skb_load_bytes(skb, inner + offsetof(struct iphdr, saddr), &pkt->inner_saddr.ip4, 4);
		err |= bpf_skb_load_bytes(skb, inner + offsetof(struct iphdr, daddr), &pkt->inner_daddr.ip4, 4);
	} else {
		err = bpf_skb_load_bytes(skb, inner + offsetof(struct ipv6hdr, saddr), &pkt->inner_saddr, 16);
		err |= bpf_skb_load_bytes(skb, inner + offsetof(struct ipv6hdr, daddr), &pkt->inner_daddr, 16);
	}
	return err ? DROP(pkt, DROP_CT_INVALID_HEADER, 0) : 0;
}

static __always_inline int parse_l4(struct __sk_buff *skb, struct packet *pkt)
{
	struct l4_head head = {};

	switch (pkt->protocol) {
	case IPPROTO_TCP:
		if (bpf_skb_load_bytes(skb, pkt->l4_offset, &head, 14))
			return DROP(pkt, DROP_CT_INVALID_HEADER, 0);
		pkt->tcp_flags = head.tcp_flags;
		break;
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		if (bpf_skb_load_bytes(skb, pkt->l4_offset, &head, 8))
			return DROP(pkt, DROP_CT_INVALID_HEADER, 0);
		break;
	case IPPROTO_ICMP:
		if (bpf_skb_load_bytes(skb, pkt->l4_offset, &head, 8))
			return DROP(pkt, DROP_CT_INVALID_HEADER, 0);
		pkt->icmp_type = head.icmp_type;
		pkt->icmp_code = head.icmp_code;
		if (head.icmp_type == ICMP_ECHO_REQUEST)
			pkt->dport = head.word2;
		else if (head.icmp_type == ICMP_ECHO_REPLY)
			pkt->sport = head.word2;
		else if (head.icmp_type == ICMP_UNREACHABLE || head.icmp_type == ICMP_TIME_EXCEEDED ||
			 head.icmp_type == ICMP_PARAMETER)
			return parse_icmp_error(skb, pkt);
		return 0;
	case IPPROTO_ICMPV6:
		if (bpf_skb_load_bytes(skb, pkt->l4_offset, &head, 4))
			return DROP(pkt, DROP_CT_INVALID_HEADER, 0);
		pkt->icmp_type = head.icmp_type;
		pkt->icmp_code = head.icmp_code;
		if (head.icmp_type >= ICMP6_ERROR_FIRST && head.icmp_type <= ICMP6_ERROR_LAST)
			return parse_icmp_error(skb, pkt);
		if (head.icmp_type != ICMP6_ECHO_REQUEST && head.icmp_type != ICMP6_ECHO_REPLY)
			return 0;
		if (bpf_skb_load_bytes(skb, pkt->l4_offset, &head, 8))
			return DROP(pkt, DROP_CT_INVALID_HEADER, 0);
		if (head.icmp_type == ICMP6_ECHO_REQUEST)
			pkt->dport = head.word2;
		else
			pkt->sport = head.word2;
		return 0;
	default:
		/* Known only by its number; who tracks connections drops it, who forwards for the node does not. */
		return 0;
	}
	pkt->sport = head.sport;
	pkt->dport = head.dport;
	return 0;
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct packet *pkt)
{
	struct iphdr *ip;
	__u16 fragment;
	__u32 id;
	int ret;

	if (!pull(skb, ETH_HLEN + sizeof(*ip)))
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	ip = (void *)(long)skb->data + ETH_HLEN;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	if (ip->version != 4 || ip->ihl < 5)
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	pkt->saddr.ip4 = ip->saddr;
	pkt->daddr.ip4 = ip->daddr;
	pkt->protocol = ip->protocol;
	pkt->ttl = ip->ttl;
	pkt->l4_offset = ETH_HLEN + ip->ihl * 4;
	fragment = bpf_ntohs(ip->frag_off);
	id = ip->id;
	if (likely(!(fragment & (IP4_FRAGMENT_OFFSET | IP4_MORE_FRAGMENTS))))
		return parse_l4(skb, pkt);
	pkt->no_ports = fragment & IP4_FRAGMENT_OFFSET;
	if (pkt->no_ports)
		return fragment_ports(pkt, id, false);
	ret = parse_l4(skb, pkt);
	return ret ? ret : fragment_ports(pkt, id, true);
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct packet *pkt)
{
	bool fragmented = false, first = true;
	struct ipv6hdr *ip;
	__u32 offset, id = 0;
	int i, ret;

	if (!pull(skb, ETH_HLEN + sizeof(*ip)))
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	ip = (void *)(long)skb->data + ETH_HLEN;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	if (ip->version != 6)
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	memcpy(&pkt->saddr, &ip->saddr, 16);
	memcpy(&pkt->daddr, &ip->daddr, 16);
	pkt->protocol = ip->nexthdr;
	pkt->ttl = ip->hop_limit;
	offset = ETH_HLEN + sizeof(*ip);

#pragma unroll
	for (i = 0; i < IP6_MAX_EXTENSIONS; i++) {
		__u8 head[8];

		if (likely(!is_extension(pkt->protocol)))
			break;
		if (bpf_skb_load_bytes(skb, offset, head, sizeof(head)))
			return DROP(pkt, DROP_INVALID_EXTENSION_HEADER, 0);
		if (pkt->protocol == IPPROTO_FRAGMENT) {
			fragmented = true;
			first = !((head[2] << 8 | head[3]) & 0xFFF8);
			memcpy(&id, head + 4, 4);
			offset += 8;
		} else if (pkt->protocol == IPPROTO_AH) {
			offset += (head[1] + 2) * 4;
		} else {
			offset += (head[1] + 1) * 8;
		}
		pkt->protocol = head[0];
		if (!first)
			break;
	}
	if (is_extension(pkt->protocol) && first)
		return DROP(pkt, DROP_INVALID_EXTENSION_HEADER, 0);
	pkt->l4_offset = offset;
	if (likely(!fragmented))
		return parse_l4(skb, pkt);
	pkt->no_ports = !first;
	if (pkt->no_ports)
		return fragment_ports(pkt, id, false);
	ret = parse_l4(skb, pkt);
	return ret ? ret : fragment_ports(pkt, id, true);
}

/* The family alone, so that an event can name it before anything else is read; FAMILY_NONE: not IP. */
static __always_inline __u8 packet_family(const struct __sk_buff *skb)
{
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return FAMILY_IPV4;
	case bpf_htons(ETH_P_IPV6):
		return FAMILY_IPV6;
	}
	return FAMILY_NONE;
}

/* Fill `pkt`, whose family is set, from an IP packet behind an Ethernet header. Returns 0 or -DROP_*.
 *
 * Not static: the verifier looks at such a function once and forgets how it came to its result. Else it would follow
 * every way through the headers again and again through all that comes after.
 */
__noinline int parse_packet(struct __sk_buff *skb, struct packet *pkt)
{
	if (!pkt)
		return -DROP_INVALID_PACKET;
	return pkt->family == FAMILY_IPV4 ? parse_ipv4(skb, pkt) : parse_ipv6(skb, pkt);
}

/* Traffic of the link itself: solicitations, reports of multicast groups. It goes no further than the veth. */
static __always_inline bool is_link_chatter(const struct packet *pkt)
{
	return pkt->family == FAMILY_IPV6 && pkt->protocol == IPPROTO_ICMPV6 &&
	       ((pkt->icmp_type >= ICMP6_MLD_QUERY && pkt->icmp_type <= ICMP6_REDIRECT) ||
		pkt->icmp_type == ICMP6_MLD2_REPORT);
}

#endif
