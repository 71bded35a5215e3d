/* Telling user space: trace and drop events, and the metrics that go with them. The one way out of every program. */
#ifndef FLOWSCOPE_EVENTS_H
#define FLOWSCOPE_EVENTS_H

#include "packet.h"

/* Append header and packet bytes to this CPU's perf ring. What cannot be stored is counted by the kernel for the
 * reader, and here for whoever checks the reader: stored + ring_full is what a reader must account for.
 *
 * Atomic, though each CPU has its own: a packet may come in while a socket's program counts.
 */
static __always_inline void send_event(void *context, void *header, __u32 size, __u32 captured)
{
	__u64 flags = (__u64)captured << 32 | BPF_F_CURRENT_CPU;
	struct event_stats *stats;
	__u32 zero = 0;
	long err;

	err = bpf_perf_event_output(context, &cilium_events, flags, header, size);
	stats = bpf_map_lookup_elem(&flowscope_events, &zero);
	if (!stats)
		return;
	switch (err) {
	case 0:
		__sync_fetch_and_add(&stats->stored, 1);
		break;
	case -28 /* ENOSPC */:
		__sync_fetch_and_add(&stats->ring_full, 1);
		break;
	case -2 /* ENOENT */:
		__sync_fetch_and_add(&stats->no_reader, 1);
		break;
	default:
		__sync_fetch_and_add(&stats->failed, 1);
	}
}

static __always_inline void
count_packet(const struct __sk_buff *skb, __u8 reason, __u8 direction, __u16 line, __u8 file)
{
	struct metrics_key key = { .reason = reason, .direction = direction, .line = line, .file = file };
	struct metrics_value *value, first = { .count = 1, .bytes = skb->len };

	value = bpf_map_lookup_elem(&cilium_metrics, &key);
	if (value) {
		value->count++;
		value->bytes += skb->len;
	} else {
		bpf_map_update_elem(&cilium_metrics, &key, &first, BPF_NOEXIST);
	}
}

static __always_inline void count_trace(const struct __sk_buff *skb, __u8 point)
{
	switch (point) {
	case TO_ENDPOINT:
		count_packet(skb, METRIC_FORWARDED, METRIC_INGRESS, 0, 0);
		break;
	case TO_HOST:
	case TO_STACK:
	case TO_OVERLAY:
	case TO_NETWORK:
		count_packet(skb, METRIC_FORWARDED, METRIC_EGRESS, 0, 0);
		break;
	case FROM_HOST:
	case FROM_STACK:
	case FROM_OVERLAY:
	case FROM_NETWORK:
		count_packet(skb, METRIC_PLAIN_IN, METRIC_INGRESS, 0, 0);
		break;
	}
}

static __always_inline __u32 captured_bytes(const struct __sk_buff *skb, __u32 monitor, __u8 flags)
{
	__u32 limit = monitor;

	if (monitor == 0 || monitor == MONITOR_DEFAULT)
		limit = flags & EVENT_FLAG_VXLAN ? MONITOR_OVERLAY : MONITOR_DEFAULT;
	return limit < skb->len ? limit : skb->len;
}

static __always_inline struct capture_header
capture_header(const struct __sk_buff *skb, __u8 type, __u8 subtype, __u8 version, __u16 source, __u32 captured)
{
	return (struct capture_header){
		.type = type,
		.subtype = subtype,
		.source = source,
		.hash = skb->hash,
		.len_orig = skb->len,
		.len_cap = captured,
		.version = version,
	};
}

struct trace {
	__u8	point;			/* enum observation_point */
	__u8	reason;			/* enum ct_status */
	__u8	flags;			/* EVENT_FLAG_VXLAN */
	__u16	source;
	__u16	dst_id;
	__u32	src_identity;
	__u32	dst_identity;
	__u32	ifindex;
	__u32	monitor;		/* bytes to capture; 0: connection tracking does not ask for a report */
	union addr orig_ip;		/* source before translation, where it differs; else 0 */
};

/* Points that only say where a packet came from; the to-* point of the same program follows. */
static __always_inline bool is_from_point(__u8 point)
{
	return point >= FROM_ENDPOINT && point <= FROM_NETWORK;
}

static __always_inline bool trace_wanted(const struct node_config *config, const struct trace *trace)
{
	if (is_from_point(trace->point))
		return config->aggregation < AGGREGATE_LOWEST;
	return trace->monitor || config->aggregation < AGGREGATE_MEDIUM;
}

/* Count the packet at this point, and send an event if the aggregation level lets it through. */
static __always_inline void trace_packet(struct __sk_buff *skb, const struct node_config *config, __u8 family,
					 const struct trace *trace)
{
	__u32 captured = captured_bytes(skb, trace->monitor, trace->flags);

	count_trace(skb, trace->point);
	if (!trace_wanted(config, trace))
		return;

	struct trace_notify event = {
		.header = capture_header(skb, MESSAGE_TRACE, trace->point, 1, trace->source, captured),
		.src_label = trace->src_identity,
		.dst_label = trace->dst_identity,
		.dst_id = trace->dst_id,
		.reason = trace->reason,
		.flags = trace->flags | (family == FAMILY_IPV6 ? EVENT_FLAG_IPV6 : 0),
		.ifindex = trace->ifindex,
		.orig_ip = trace->orig_ip,
	};
	send_event(skb, &event, sizeof(event), captured);
}

struct drop {
	__u8	direction;		/* enum metric_direction */
	__u16	source;
	__u16	dst_id;
	__u32	src_identity;
	__u32	dst_identity;
};

/* Report a packet that ends here for the reason in `ret` (-DROP_*), and end it. Drops are never aggregated. */
static __always_inline int
drop_packet(struct __sk_buff *skb, const struct packet *pkt, int ret, const struct drop *drop)
{
	__u32 captured = captured_bytes(skb, 0, 0);
	struct drop_notify event = {
		.header = capture_header(skb, MESSAGE_DROP, -ret, 2, drop->source, captured),
		.src_label = drop->src_identity,
		.dst_label = drop->dst_identity,
		.dst_id = drop->dst_id,
		.line = pkt->drop_line,
		.file = pkt->drop_file,
		.ext_error = pkt->drop_ext,
		.ifindex = skb->ifindex,
		.flags = pkt->family == FAMILY_IPV6 ? EVENT_FLAG_IPV6 : 0,
	};

	count_packet(skb, -ret, drop->direction, pkt->drop_line, pkt->drop_file);
	send_event(skb, &event, sizeof(event), captured);
	return TC_ACT_SHOT;
}

#endif
