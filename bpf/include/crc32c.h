/* The checksum of SCTP when a port changes, without reading the packet.
 *
 * A CRC is linear: what two packets differ in decides what their checksums differ in, wherever they are the same. The
 * difference stands in the first word, so its remainder is the word times x^8 for each byte of the packet, modulo the
 * polynomial: one multiplication for each bit of the packet's length. (Numbers are reflected, as RFC 9260 has them:
 * the highest bit is x^0.)
 */
#ifndef FLOWSCOPE_CRC32C_H
#define FLOWSCOPE_CRC32C_H

#include "packet.h"

#define CRC32C_POLYNOMIAL	0x82F63B78
#define SCTP_CHECKSUM		8	/* where it stands, from the header on; little endian */

/* a times b, modulo the polynomial. Not static: the verifier looks at it once. */
__noinline __u32 crc32c_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;
	int i;

	for (i = 31; i >= 0; i--) {
		product ^= b & -(a >> i & 1);
		b = b >> 1 ^ (CRC32C_POLYNOMIAL & -(b & 1));
	}
	return product;
}

/* How the checksum of `size` bytes changes whose first word changes by `difference`. */
static __always_inline __u32 crc32c_change(__u32 difference, __u16 size)
{
	__u32 factor = 0x00800000;	/* x^8: one byte more */
	int i;

	for (i = 0; i < 16; i++) {
		if (size >> i & 1)
			difference = crc32c_multiply(difference, factor);
		factor = crc32c_multiply(factor, factor);
	}
	return difference;
}

/* Bytes of the transport header and all behind it; 0: they are not all in this packet. */
static __always_inline __u16 transport_size(struct __sk_buff *skb, const struct packet *pkt)
{
	__u32 head = pkt->l4_offset - ETH_HLEN, size;
	__be16 total, fragment;

	if (pkt->family == FAMILY_IPV4) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, tot_len), &total, sizeof(total)) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, frag_off), &fragment, sizeof(fragment)) ||
		    fragment & bpf_htons(IP4_FRAGMENT_OFFSET | IP4_MORE_FRAGMENTS))
			return 0;
		size = bpf_ntohs(total);
	} else {
		if (head != sizeof(struct ipv6hdr) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, payload_len), &total, sizeof(total)))
			return 0;
		size = bpf_ntohs(total) + sizeof(struct ipv6hdr);
	}
	return size > head ? size - head : 0;
}

/* Put another port on one side. Not static, as above. Returns 0 or -DROP_*. */
__noinline int rewrite_sctp_port(struct __sk_buff *skb, struct packet *pkt, __u32 destination, __u16 to)
{
	__u32 sum, before, after;	/* both ports, as they lie there: this machine is little endian */
	__u16 size;

	if (!pkt)
		return -DROP_INVALID_PACKET;
	size = transport_size(skb, pkt);
	if (!size || bpf_skb_load_bytes(skb, pkt->l4_offset, &before, sizeof(before)) ||
	    bpf_skb_load_bytes(skb, pkt->l4_offset + SCTP_CHECKSUM, &sum, sizeof(sum)))
		return DROP(pkt, DROP_CSUM_L4, 0);
	after = destination ? (before & 0xFFFF) | (__u32)to << 16 : (before & 0xFFFF0000) | to;
	/* 0: the sender leaves it to a device, which takes it as the start of its sum. */
	if (sum)
		sum ^= crc32c_change(before ^ after, size);
	if (bpf_skb_store_bytes(skb, pkt->l4_offset, &after, sizeof(after), 0) ||
	    bpf_skb_store_bytes(skb, pkt->l4_offset + SCTP_CHECKSUM, &sum, sizeof(sum), 0))
		return DROP(pkt, DROP_WRITE_ERROR, 0);
	return 0;
}

#endif
