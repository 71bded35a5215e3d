/* A pod's link ends at its veth: whatever address it asks for (ARP, neighbour solicitation), the host side answers
 * with its own MAC. So pods need no neighbour entries and the router needs no address on every veth.
 */
#ifndef FLOWSCOPE_NEIGHBOUR_H
#define FLOWSCOPE_NEIGHBOUR_H

#include "packet.h"

#define ARP_REQUEST	1
#define ARP_REPLY	2

struct arp_ipv4 {
	__be16	hardware;
	__be16	protocol;
	__u8	hardware_size;
	__u8	protocol_size;
	__be16	operation;
	__u8	sender_mac[ETH_ALEN];
	__be32	sender_ip;
	__u8	target_mac[ETH_ALEN];
	__be32	target_ip;
} __attribute__((packed));

/* Send the packet back where it came from; to_container must not look at it. */
static __always_inline int answer(struct __sk_buff *skb)
{
	skb->tc_index = TC_INDEX_DELIVERED;
	return bpf_redirect(skb->ifindex, 0);
}

/* Returns TC_ACT_*, or -DROP_*. Answers of the pod about itself go up: the node may route to the veth and ask. */
static __always_inline int answer_arp(struct __sk_buff *skb, struct packet *pkt, const struct interface_info *own)
{
	struct arp_ipv4 *arp;
	struct ethhdr *eth;
	__be32 wanted;

	if (!pull(skb, ETH_HLEN + sizeof(*arp)))
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	eth = (void *)(long)skb->data;
	arp = (void *)(eth + 1);
	if ((void *)(arp + 1) > (void *)(long)skb->data_end)
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	wanted = arp->target_ip;
	if (arp->operation == bpf_htons(ARP_REPLY) && arp->sender_ip == own->ip4)
		return TC_ACT_OK;
	/* Whoever asks for its own address wants to hear that nobody else has it. */
	if (arp->operation != bpf_htons(ARP_REQUEST) || wanted == own->ip4)
		return TC_ACT_SHOT;
	memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	memcpy(eth->h_source, own->host_mac, ETH_ALEN);
	arp->operation = bpf_htons(ARP_REPLY);
	memcpy(arp->target_mac, arp->sender_mac, ETH_ALEN);
	arp->target_ip = arp->sender_ip;
	memcpy(arp->sender_mac, own->host_mac, ETH_ALEN);
	arp->sender_ip = wanted;
	return answer(skb);
}

/* RFC 4861, section 4.4, with the target link-layer address option. */
struct neighbour_advert {
	__u8	type;
	__u8	code;
	__be16	checksum;
	__be32	flags;
	union addr target;
	__u8	option_type;
	__u8	option_length;
	__u8	mac[ETH_ALEN];
};
_Static_assert(sizeof(struct neighbour_advert) == 32, "as on the wire");

#define ADVERT_FLAGS	0xE0000000	/* router, solicited, override */

struct neighbour_reply {		/* pseudo header of RFC 8200, section 8.1, in front of what it covers */
	union addr saddr;
	union addr daddr;
	__be32	length;
	__be32	next_header;
	struct neighbour_advert advert;
};

/* Answer a neighbour solicitation in place. Returns TC_ACT_* or -DROP_*. */
static __always_inline int
answer_solicitation(struct __sk_buff *skb, struct packet *pkt, const struct interface_info *own)
{
	const __u32 solicit_size = 24;	/* without the option, which a unicast probe may leave out */
	__u32 icmp = ETH_HLEN + sizeof(struct ipv6hdr), size = sizeof(struct neighbour_advert);
	struct neighbour_reply reply = {};
	struct ethhdr eth;
	struct ipv6hdr ip;

	if (skb->len < icmp + solicit_size)
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	if (bpf_skb_load_bytes(skb, icmp + offsetof(struct neighbour_advert, target), &reply.advert.target, 16) ||
	    bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return DROP(pkt, DROP_INVALID_PACKET, 0);
	/* Duplicate address detection, of the pod's own address: silence is the right answer. */
	if (is_unspecified(&pkt->saddr) || same_address(&reply.advert.target, &own->ip6))
		return TC_ACT_SHOT;
	if (bpf_skb_change_tail(skb, icmp + size, 0))
		return DROP(pkt, DROP_WRITE_ERROR, 0);

	reply.saddr = reply.advert.target;
	reply.daddr = pkt->saddr;
	reply.length = bpf_htonl(size);
	reply.next_header = bpf_htonl(IPPROTO_ICMPV6);
	reply.advert.type = ICMP6_NEIGHBOUR_ADVERT;
	reply.advert.flags = bpf_htonl(ADVERT_FLAGS);
	reply.advert.option_type = 2;
	reply.advert.option_length = 1;
	memcpy(reply.advert.mac, own->host_mac, ETH_ALEN);
	reply.advert.checksum = fold(bpf_csum_diff(NULL, 0, (__be32 *)&reply, sizeof(reply), 0));

	memcpy(eth.h_dest, eth.h_source, ETH_ALEN);
	memcpy(eth.h_source, own->host_mac, ETH_ALEN);
	memcpy(&ip.saddr, &reply.saddr, 16);
	memcpy(&ip.daddr, &reply.daddr, 16);
	ip.payload_len = bpf_htons(size);
	ip.hop_limit = 255;
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	    bpf_skb_store_bytes(skb, icmp, &reply.advert, size, 0))
		return DROP(pkt, DROP_WRITE_ERROR, 0);
	return answer(skb);
}

/* What a pod says on its own link. Solicitations are answered, its own adverts go up, the rest ends here: there are no
 * routers and no multicast listeners at the other end.
 */
static __always_inline int
handle_link_chatter(struct __sk_buff *skb, struct packet *pkt, const struct interface_info *own)
{
	if (pkt->icmp_type == ICMP6_NEIGHBOUR_SOLICIT)
		return answer_solicitation(skb, pkt, own);
	if (pkt->icmp_type == ICMP6_NEIGHBOUR_ADVERT && same_address(&pkt->saddr, &own->ip6))
		return TC_ACT_OK;
	return TC_ACT_SHOT;
}

#endif
