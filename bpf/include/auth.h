/* Have two identities proved who they are: records that the agent keeps, and asking it for one.
 *
 * A record is about an identity here, one there and the node that one is on. It counts until its time; none, or one that
 * is over, lets nothing pass, and the agent is asked. Before a record that is in use is over the agent is asked, too, so
 * that connections do not stop.
 */
#ifndef FLOWSCOPE_AUTH_H
#define FLOWSCOPE_AUTH_H

#include "lookup.h"

static __always_inline void want_record(const struct auth_key *pair)
{
	__u32 zero = 0;
	__u64 *missed, since_ns = bpf_ktime_get_boot_ns();

	/* The agent takes an entry out when it may be asked again; until then more packets say nothing new. */
	if (bpf_map_update_elem(&flowscope_auth_wanted, pair, &since_ns, BPF_NOEXIST) != -7 /* E2BIG: full */)
		return;
	missed = bpf_map_lookup_elem(&flowscope_auth_missed, &zero);
	if (missed)
		__sync_fetch_and_add(missed, 1);
}

/* `other` is the address of the other side, `local` and `remote` are the identities of the two. */
static __always_inline bool
is_authenticated(const union addr *other, __u8 family, __u32 local, __u32 remote)
{
	const struct node_config *config = node_config();
	const struct ipcache_info *where = find_ipcache(other, family);
	struct auth_key pair = {
		.local_identity = local,
		.remote_identity = remote,
		.remote_node_id = where ? where->node_id : 0,
		.auth_type = AUTH_REQUIRED,
	};
	const struct auth_record *found = bpf_map_lookup_elem(&cilium_auth_map, &pair);
	__u64 now_ns = bpf_ktime_get_boot_ns();
	bool valid = found && found->expires_ns > now_ns;

	if (!valid || (config && found->expires_ns - now_ns < config->auth_renew_s * 1000000000ULL))
		want_record(&pair);
	return valid;
}

#endif
