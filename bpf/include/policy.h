/* May this packet pass: the policy of the endpoint that sends or receives it.
 *
 * Each endpoint with a policy has one map in flowscope_policies, by its id; none means that everything may pass. User
 * space builds a map aside and puts it in its place in one step, so a packet meets the old policy or the new one.
 *
 * Two questions are asked: what is said about this identity, and what about any. A map holds, for each of the two, the
 * longest prefix of protocol and port; that the longest is also the one that decides is user space's care, and so is to
 * say of which entries the second question has no answer that counts.
 */
#ifndef FLOWSCOPE_POLICY_H
#define FLOWSCOPE_POLICY_H

#include "auth.h"
#include "conntrack.h"
#include "events.h"

struct policy_question {
	__u16	endpoint_id;
	__u32	own_identity;
	__u32	identity;		/* of the other side */
	__u8	direction;		/* METRIC_INGRESS or METRIC_EGRESS */
	__u8	ct_status;		/* enum ct_status */
};

struct policy_answer {
	const struct policy_entry *entry;	/* NULL: nothing is said, so denied */
	__u8	match;			/* enum policy_match */
	__u8	auth_type;		/* 0: nobody has to prove anything */
};

static __always_inline __u8 policy_prefix_length(const struct policy_entry *entry)
{
	return entry->flags >> POLICY_PREFIX_SHIFT;
}

/* An entry that does not name a type of its own leaves it to the other one that fits, if that is stricter. */
static __always_inline __u8 policy_auth_type(const struct policy_entry *winner, const struct policy_entry *other)
{
	__u8 type = winner->auth & POLICY_AUTH_TYPE;

	if (winner->flags & POLICY_DENY)
		return 0;
	if (other && !(winner->auth & POLICY_AUTH_BY_NAME) && (other->auth & POLICY_AUTH_TYPE) > type)
		return other->auth & POLICY_AUTH_TYPE;
	return type;
}

static __always_inline struct policy_answer
policy_ask(void *policy, const struct packet *pkt, const struct policy_question *question)
{
	struct policy_key key = {
		.prefix_length = POLICY_FULL_BITS,
		.identity = question->identity,
		.egress = question->direction == METRIC_EGRESS,
		.protocol = pkt->protocol,
		.dport = pkt->dport,
	};
	const struct policy_entry *mine, *any = NULL;

	/* The id of an echo is no port; policies speak of types. */
	if (pkt->protocol == IPPROTO_ICMP || pkt->protocol == IPPROTO_ICMPV6)
		key.dport = bpf_htons(pkt->icmp_type);
	mine = bpf_map_lookup_elem(policy, &key);
	if (mine && mine->flags & POLICY_FINAL)
		goto mine_wins;
	key.identity = 0;
	any = bpf_map_lookup_elem(policy, &key);
	if (!any)
		goto mine_wins;
	if (mine && (mine->precedence > any->precedence ||
		     (mine->precedence == any->precedence && policy_prefix_length(mine) >= policy_prefix_length(any))))
		goto mine_wins;
	return (struct policy_answer){ .entry = any, .auth_type = policy_auth_type(any, mine),
		.match = policy_prefix_length(any) > 8 ? MATCH_L4_ONLY :
			 policy_prefix_length(any) ? MATCH_PROTO_ONLY : MATCH_ALL };
mine_wins:
	if (!mine)
		return (struct policy_answer){ .match = MATCH_NONE };
	return (struct policy_answer){ .entry = mine, .auth_type = policy_auth_type(mine, any),
		.match = policy_prefix_length(mine) > 8 ? MATCH_L3_L4 :
			 policy_prefix_length(mine) ? MATCH_L3_PROTO : MATCH_L3_ONLY };
}

/* Flags POLICY_* that came with this very map. */
static __always_inline __u32 policy_settings(void *policy)
{
	const struct policy_entry *entry;
	struct policy_key key = {};

	/* Not in the initialiser: the compiler would make a section of constants, and with it a map, for one key. */
	key.prefix_length = POLICY_FULL_BITS;
	key.identity = POLICY_SETTINGS_IDENTITY;
	entry = bpf_map_lookup_elem(policy, &key);
	return entry ? entry->cookie : 0;
}

static __always_inline void
send_verdict(struct __sk_buff *skb, const struct packet *pkt, const struct policy_question *question,
	     const struct policy_answer *answer, __s32 verdict, bool audited)
{
	__u32 captured = captured_bytes(skb, MONITOR_DEFAULT, 0);
	bool icmp = pkt->protocol == IPPROTO_ICMP || pkt->protocol == IPPROTO_ICMPV6;
	struct policy_verdict_notify event = {
		.header = capture_header(skb, MESSAGE_POLICY_VERDICT, 0, 1, question->endpoint_id, captured),
		.remote_label = question->identity,
		.verdict = verdict,
		.dst_port = icmp ? pkt->icmp_type : bpf_ntohs(pkt->dport),
		.protocol = pkt->protocol,
		.flags = question->direction | answer->match << VERDICT_MATCH_SHIFT |
			 (pkt->family == FAMILY_IPV6 ? VERDICT_IPV6 : 0) | (audited ? VERDICT_AUDITED : 0),
		.auth_type = answer->auth_type,
		.cookie = answer->entry ? answer->entry->cookie : 0,
	};

	send_event(skb, &event, sizeof(event), captured);
}

/* A path's MTU has to reach the sender, whatever else it may not hear. */
static __always_inline bool is_too_big(const struct packet *pkt)
{
	if (pkt->family == FAMILY_IPV4)
		return pkt->protocol == IPPROTO_ICMP && pkt->icmp_type == ICMP_UNREACHABLE &&
		       pkt->icmp_code == ICMP_FRAGMENTATION_NEEDED;
	return pkt->protocol == IPPROTO_ICMPV6 && pkt->icmp_type == ICMP6_PACKET_TOO_BIG;
}

/* 0: may pass; above 0: port of the proxy that decides further, as on the wire; else -DROP_*. */
static __always_inline int
policy_verdict(struct packet *pkt, const struct policy_question *question, const struct policy_answer *answer)
{
	const struct policy_entry *entry = answer->entry;
	__u8 auth_type = answer->auth_type;

	if (!entry)
		return DROP(pkt, DROP_POLICY_DENIED, 0);
	if (entry->flags & POLICY_DENY)
		return DROP(pkt, DROP_POLICY_DENY, 0);
	if (auth_type && (auth_type != AUTH_REQUIRED ||
			  !is_authenticated(question->direction == METRIC_EGRESS ? &pkt->daddr : &pkt->saddr,
					    pkt->family, question->own_identity, question->identity)))
		return DROP(pkt, DROP_AUTH_REQUIRED, auth_type);
	return entry->proxy_port_be;
}

/* Let the policy decide about a packet and tell who listens. Established connections are asked about again, because a
 * change of the policy is meant for them too; replies and errors belong to a connection that somebody allowed.
 * Returns 0: may pass; above 0: port of the proxy, as on the wire; -DROP_*.
 */
static __always_inline int
policy_check(struct __sk_buff *skb, struct packet *pkt, const struct policy_question *question)
{
	__u32 endpoint_id = question->endpoint_id, settings;
	struct policy_answer answer;
	bool audited = false;
	void *policy;
	int verdict;

	if (question->ct_status != CT_NEW && question->ct_status != CT_ESTABLISHED)
		return 0;
	policy = bpf_map_lookup_elem(&flowscope_policies, &endpoint_id);
	if (!policy || unlikely(is_too_big(pkt)))
		return 0;
	answer = policy_ask(policy, pkt, question);
	verdict = policy_verdict(pkt, question, &answer);
	if (likely(verdict >= 0 && question->ct_status == CT_ESTABLISHED))
		return verdict;

	settings = policy_settings(policy);
	if (verdict < 0 && settings & POLICY_AUDIT) {
		audited = true;
		verdict = 0;
	}
	if (settings & question->direction && (verdict < 0 || question->ct_status == CT_NEW))
		send_verdict(skb, pkt, question, &answer, verdict > 0 ? bpf_ntohs(verdict) : verdict, audited);
	return verdict;
}

/* A load balancer of layer 7 takes a packet before any policy does; who watches this endpoint's policy is told. */
static __always_inline void
tell_redirected(struct __sk_buff *skb, const struct packet *pkt, const struct policy_question *question, __be16 port_be)
{
	struct policy_answer nobody = { .match = MATCH_NONE };
	__u32 endpoint_id = question->endpoint_id;
	void *policy = bpf_map_lookup_elem(&flowscope_policies, &endpoint_id);

	if (policy && question->ct_status == CT_NEW && policy_settings(policy) & question->direction)
		send_verdict(skb, pkt, question, &nobody, bpf_ntohs(port_be), false);
}

#endif
