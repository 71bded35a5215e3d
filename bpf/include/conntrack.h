/* Connection tracking: is this packet new, established, a reply or about an error; and is it worth an event.
 *
 * An endpoint's own connections are entries with CT_OUT, those it serves with CT_IN. Each packet asks for the reversed
 * tuple first (a hit is a reply), then for its own (a hit is established). A connection between two pods of one node
 * has two entries, one for each end.
 */
#ifndef FLOWSCOPE_CONNTRACK_H
#define FLOWSCOPE_CONNTRACK_H

#include "counting.h"
#include "packet.h"

#define CT_TCP_S		8000
#define CT_TCP_SYN_S		60
#define CT_TCP_CLOSE_S		10
#define CT_ANY_S		60
#define DNS_PORT		53
#define CT_REV_NAT_SHIFT	16	/* in how a connection is handled: index of its service */

enum ct_direction {
	CT_EGRESS,			/* leaving the endpoint */
	CT_INGRESS,
};

struct ct_state {
	__u32	monitor;		/* bytes to report; 0: nothing new about this connection */
	__u8	status;			/* enum ct_status */
	__u16	flags;			/* of its entry, CT_ENTRY_*; 0 while there is none */
	__be16	rev_nat_index_be;	/* of its entry: the service by whose address it was opened; 0: none */
};

static __always_inline __u8 ct_own_flag(enum ct_direction direction)
{
	return direction == CT_EGRESS ? CT_OUT : CT_IN;
}

static __always_inline __u8 ct_other_flag(enum ct_direction direction)
{
	return direction == CT_EGRESS ? CT_IN : CT_OUT;
}

static __always_inline void *ct_map(__u8 family, __u8 protocol)
{
	if (family == FAMILY_IPV4)
		return protocol == IPPROTO_TCP ? (void *)&cilium_ct4_global : (void *)&cilium_ct_any4_global;
	return protocol == IPPROTO_TCP ? (void *)&cilium_ct6_global : (void *)&cilium_ct_any6_global;
}

static __always_inline enum counted_map ct_counted(__u8 family, __u8 protocol)
{
	if (family == FAMILY_IPV4)
		return protocol == IPPROTO_TCP ? COUNTED_CT4_TCP : COUNTED_CT4_ANY;
	return protocol == IPPROTO_TCP ? COUNTED_CT6_TCP : COUNTED_CT6_ANY;
}

static __always_inline void ct_renew(struct ct_entry *entry, const struct packet *pkt, __u32 now)
{
	__u32 lifetime = CT_ANY_S;

	if (pkt->protocol == IPPROTO_TCP) {
		if (!(pkt->tcp_flags & TCP_SYN))
			entry->flags |= CT_ENTRY_SEEN_NON_SYN;
		lifetime = entry->flags & CT_ENTRY_SEEN_NON_SYN ? CT_TCP_S : CT_TCP_SYN_S;
	}
	/* Written once a second, not once a packet; and never shortened (entries for ICMP errors live long). */
	if (entry->lifetime_s < now + lifetime)
		entry->lifetime_s = now + lifetime;
}

/* Is this packet the first with one of its flags in its direction, or the first after a quiet interval? */
static __always_inline bool
ct_report_due(struct ct_entry *entry, const struct packet *pkt, enum ct_direction direction,
	      const struct node_config *config, __u32 now)
{
	__u8 seen = direction == CT_EGRESS ? entry->tx_flags_seen : entry->rx_flags_seen;
	__u32 last = direction == CT_EGRESS ? entry->last_tx_report_s : entry->last_rx_report_s;

	if (!(pkt->tcp_flags & config->monitor_flags & ~seen) && last + config->monitor_interval_s >= now)
		return false;
	if (direction == CT_EGRESS) {
		entry->tx_flags_seen = seen | pkt->tcp_flags;
		entry->last_tx_report_s = now;
	} else {
		entry->rx_flags_seen = seen | pkt->tcp_flags;
		entry->last_rx_report_s = now;
	}
	return true;
}

/* Plain additions: both directions of a connection rarely meet on two CPUs at once, and a lost count costs nothing
 * where an atomic one would cost every packet.
 */
static __always_inline void ct_count(struct ct_entry *entry, __u32 bytes, enum ct_direction direction)
{
	if (direction == CT_EGRESS) {
		entry->tx_packets++;
		entry->tx_bytes += bytes;
	} else {
		entry->rx_packets++;
		entry->rx_bytes += bytes;
	}
}

static __always_inline bool ct_both_closing(const struct ct_entry *entry)
{
	return (entry->flags & CT_ENTRY_CLOSING) == CT_ENTRY_CLOSING;
}

static __always_inline void
ct_close(struct ct_entry *entry, const struct packet *pkt, enum ct_direction direction, __u32 now)
{
	bool both_syns = entry->tx_flags_seen & entry->rx_flags_seen & TCP_SYN;

	if (pkt->tcp_flags & TCP_RST && !both_syns)
		entry->flags |= CT_ENTRY_CLOSING;
	else
		entry->flags |= direction == CT_EGRESS ? CT_ENTRY_TX_CLOSING : CT_ENTRY_RX_CLOSING;
	if (ct_both_closing(entry))
		entry->lifetime_s = now + CT_TCP_CLOSE_S;
}

/* An expired entry is no entry, whether or not user space has collected it; so is a closing one for a fresh SYN. */
static __always_inline bool ct_usable(const struct ct_entry *entry, const struct packet *pkt, __u32 now)
{
	if (!entry || entry->lifetime_s < now)
		return false;
	return !((pkt->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && entry->flags & CT_ENTRY_CLOSING);
}

/* Note a packet of a known connection. `state->monitor` stays as it is when both sides have closed: that is what
 * makes the last ACK of the opener visible, and keeps those of the other side silent.
 */
static __always_inline void
ct_hit(struct __sk_buff *skb, struct ct_entry *entry, const struct packet *pkt, enum ct_direction direction,
       const struct node_config *config, __u32 now, struct ct_state *state)
{
	ct_count(entry, skb->len, direction);
	if (!ct_both_closing(entry)) {
		ct_renew(entry, pkt, now);
		state->monitor = ct_report_due(entry, pkt, direction, config, now) ? MONITOR_DEFAULT : 0;
	}
	if (unlikely(pkt->tcp_flags & (TCP_FIN | TCP_RST))) {
		ct_close(entry, pkt, direction, now);
		state->monitor = MONITOR_DEFAULT;
	}
}

static __always_inline void
ct_find(struct __sk_buff *skb, void *map, const void *reverse, const void *forward, const struct packet *pkt,
	enum ct_direction direction, const struct node_config *config, struct ct_state *state)
{
	struct ct_entry *entry;
	__u32 now = now_s();

	entry = bpf_map_lookup_elem(map, reverse);
	if (entry && ct_usable(entry, pkt, now)) {
		state->status = pkt->icmp_error ? CT_RELATED : CT_REPLY;
		state->flags = entry->flags;
		state->rev_nat_index_be = entry->rev_nat_index_be;
		ct_hit(skb, entry, pkt, direction, config, now, state);
		return;
	}
	state->monitor = MONITOR_DEFAULT;
	entry = bpf_map_lookup_elem(map, forward);
	if (entry && ct_usable(entry, pkt, now)) {
		state->status = pkt->icmp_error ? CT_RELATED : CT_ESTABLISHED;
		state->flags = entry->flags;
		state->rev_nat_index_be = entry->rev_nat_index_be;
		ct_hit(skb, entry, pkt, direction, config, now, state);
		return;
	}
	state->status = CT_NEW;
}

/* Keys of a packet's own tuple and its reverse. An ICMP error stands for the packet inside it: sent the other way. */
static __always_inline void
ct4_keys(const struct packet *pkt, enum ct_direction direction, struct ct4_key *forward, struct ct4_key *reverse)
{
	__u8 own = ct_own_flag(direction), other = ct_other_flag(direction);
	__be32 saddr = pkt->saddr.ip4, daddr = pkt->daddr.ip4;

	if (unlikely(pkt->icmp_error)) {
		saddr = pkt->inner_daddr.ip4;
		daddr = pkt->inner_saddr.ip4;
		own |= CT_RELATED_TO;
		other |= CT_RELATED_TO;
	}
	*forward = (struct ct4_key){ .daddr = daddr, .saddr = saddr, .dport = pkt->dport, .sport = pkt->sport,
				     .protocol = pkt->protocol, .flags = own };
	*reverse = (struct ct4_key){ .daddr = saddr, .saddr = daddr, .dport = pkt->sport, .sport = pkt->dport,
				     .protocol = pkt->protocol, .flags = other };
}

static __always_inline void
ct6_keys(const struct packet *pkt, enum ct_direction direction, struct ct6_key *forward, struct ct6_key *reverse)
{
	__u8 own = ct_own_flag(direction), other = ct_other_flag(direction);

	forward->saddr = reverse->daddr = pkt->saddr;
	forward->daddr = reverse->saddr = pkt->daddr;
	if (unlikely(pkt->icmp_error)) {
		forward->saddr = reverse->daddr = pkt->inner_daddr;
		forward->daddr = reverse->saddr = pkt->inner_saddr;
		own |= CT_RELATED_TO;
		other |= CT_RELATED_TO;
	}
	forward->sport = reverse->dport = pkt->sport;
	forward->dport = reverse->sport = pkt->dport;
	forward->protocol = reverse->protocol = pkt->protocol;
	forward->flags = own;
	reverse->flags = other;
}

static __always_inline bool ct_known_protocol(const struct packet *pkt)
{
	switch (pkt->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		return true;
	case IPPROTO_ICMP:
		return pkt->family == FAMILY_IPV4;
	case IPPROTO_ICMPV6:
		return pkt->family == FAMILY_IPV6;
	}
	return false;
}

/* Find a packet's connection. Returns 0 and fills `state`, or -DROP_*. */
static __always_inline int
ct_lookup(struct __sk_buff *skb, struct packet *pkt, enum ct_direction direction, const struct node_config *config,
	  struct ct_state *state)
{
	if (unlikely(!ct_known_protocol(pkt)))
		return DROP(pkt, DROP_CT_UNKNOWN_PROTOCOL, 0);

	state->monitor = 0;
	state->flags = 0;
	state->rev_nat_index_be = 0;
	if (pkt->family == FAMILY_IPV4) {
		struct ct4_key forward, reverse;

		ct4_keys(pkt, direction, &forward, &reverse);
		ct_find(skb, ct_map(pkt->family, pkt->protocol), &reverse, &forward, pkt, direction, config, state);
	} else {
		struct ct6_key forward, reverse;

		ct6_keys(pkt, direction, &forward, &reverse);
		ct_find(skb, ct_map(pkt->family, pkt->protocol), &reverse, &forward, pkt, direction, config, state);
	}

	/* Names are what makes flows readable: no question and no answer is left out. */
	if ((pkt->protocol == IPPROTO_UDP || pkt->protocol == IPPROTO_TCP) &&
	    (pkt->dport == bpf_htons(DNS_PORT) || pkt->sport == bpf_htons(DNS_PORT)))
		state->monitor = MONITOR_WHOLE;
	return 0;
}

/* The entry of a packet's connection, seen from one end: of one that it opens or belongs to, or of one that it answers.
 * Only looks; ct_lookup() also notes the packet.
 */
static __always_inline const struct ct_entry *
ct_peek(const struct packet *pkt, enum ct_direction direction, bool answers)
{
	if (pkt->family == FAMILY_IPV4) {
		struct ct4_key forward, reverse;

		ct4_keys(pkt, direction, &forward, &reverse);
		return bpf_map_lookup_elem(ct_map(pkt->family, pkt->protocol), answers ? &reverse : &forward);
	} else {
		struct ct6_key forward, reverse;

		ct6_keys(pkt, direction, &forward, &reverse);
		return bpf_map_lookup_elem(ct_map(pkt->family, pkt->protocol), answers ? &reverse : &forward);
	}
}

/* Is this a reply for whoever is asked, by `direction`? */
static __always_inline bool ct_is_reply(const struct packet *pkt, enum ct_direction direction)
{
	const struct ct_entry *entry = ct_peek(pkt, direction, true);

	return entry && ct_usable(entry, pkt, now_s());
}

/* Does the connection need an entry, made now or made again because it is handled differently from now on? */
static __always_inline bool ct_is_due(const struct ct_state *state, __u32 handling)
{
	__u32 present = (state->flags & CT_ENTRY_HANDLING) | state->rev_nat_index_be << CT_REV_NAT_SHIFT;

	return state->status == CT_NEW || (state->status == CT_ESTABLISHED && present != handling);
}

/* Let ICMP errors come about connections of two addresses. One entry serves all of them and must outlive each, so most
 * find it there and renew it: to put another in its place would take the lock of the LRU list, and more than once.
 */
static __always_inline void
expect_errors(void *map, enum counted_map counted, const void *key, __u32 src_identity, __u32 now)
{
	struct ct_entry *known = bpf_map_lookup_elem(map, key);
	struct ct_entry first = { .src_identity = src_identity, .lifetime_s = now + CT_TCP_S };

	if (!known || known->src_identity != src_identity) {
		insert(map, counted, key, &first);
		return;
	}
	known->lifetime_s = first.lifetime_s;
	/* The first error about the new connection is told. */
	known->last_tx_report_s = known->last_rx_report_s = 0;
}

/* Remember a new connection, how it is handled (CT_ENTRY_HANDLING, and the service's index above), and that ICMP
 * errors may come about it. Returns 0 or -DROP_*.
 */
static __always_inline int
ct_create(struct __sk_buff *skb, struct packet *pkt, enum ct_direction direction, __u32 src_identity, __u32 handling)
{
	struct ct_entry entry = {
		.src_identity = src_identity,
		.flags = handling,
		.rev_nat_index_be = handling >> CT_REV_NAT_SHIFT,
	};
	__u32 now = now_s();
	long err;

	/* An error about nothing known is delivered as new, and is nothing to track. */
	if (pkt->icmp_error)
		return 0;
	ct_renew(&entry, pkt, now);
	ct_count(&entry, skb->len, direction);
	if (direction == CT_EGRESS) {
		entry.tx_flags_seen = pkt->tcp_flags;
		entry.last_tx_report_s = now;
	} else {
		entry.rx_flags_seen = pkt->tcp_flags;
		entry.last_rx_report_s = now;
	}

	if (pkt->family == FAMILY_IPV4) {
		struct ct4_key key, unused;

		ct4_keys(pkt, direction, &key, &unused);
		err = insert(ct_map(pkt->family, pkt->protocol), ct_counted(pkt->family, pkt->protocol), &key, &entry);
		key.sport = key.dport = 0;
		key.protocol = IPPROTO_ICMP;
		key.flags |= CT_RELATED_TO;
		expect_errors(&cilium_ct_any4_global, COUNTED_CT4_ANY, &key, src_identity, now);
	} else {
		struct ct6_key key, unused;

		ct6_keys(pkt, direction, &key, &unused);
		err = insert(ct_map(pkt->family, pkt->protocol), ct_counted(pkt->family, pkt->protocol), &key, &entry);
		key.sport = key.dport = 0;
		key.protocol = IPPROTO_ICMPV6;
		key.flags |= CT_RELATED_TO;
		expect_errors(&cilium_ct_any6_global, COUNTED_CT6_ANY, &key, src_identity, now);
	}
	return err ? DROP(pkt, DROP_CT_CREATE_FAILED, err) : 0;
}

#endif
