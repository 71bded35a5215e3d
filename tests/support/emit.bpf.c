/* Sends one trace event per run and nothing else: what an event costs, and how exact the accounting is. */
#include "events.h"

SEC("tc")
int emit(struct __sk_buff *skb)
{
	__u32 captured = skb->len < MONITOR_DEFAULT ? skb->len : MONITOR_DEFAULT;
	struct trace_notify event = {
		.header = capture_header(skb, MESSAGE_TRACE, TO_ENDPOINT, 1, 7, captured),
		.src_label = 1001,
		.dst_label = 1002,
		.dst_id = 7,
	};

	send_event(skb, &event, sizeof(event), captured);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
