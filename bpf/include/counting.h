/* Entries of maps that throw out what was not used for longest: made through here, so that it is known how many were. */
#ifndef FLOWSCOPE_COUNTING_H
#define FLOWSCOPE_COUNTING_H

#include "maps.h"

/* Make an entry, and count it, so that a reader knows how many a full map has thrown out. Returns 0, -EEXIST or what else
 * the kernel says.
 */
static __always_inline long insert_new(void *map, enum counted_map counted, const void *key, const void *value)
{
	long err = bpf_map_update_elem(map, key, value, BPF_NOEXIST);
	__u64 *count;
	__u32 index = counted;

	count = err ? NULL : bpf_map_lookup_elem(&flowscope_inserts, &index);
	if (count)
		(*count)++;
	return err;
}

/* The same, in the place of an older one if there is one. */
static __always_inline long insert(void *map, enum counted_map counted, const void *key, const void *value)
{
	long err = insert_new(map, counted, key, value);

	return err == -EEXIST ? bpf_map_update_elem(map, key, value, BPF_ANY) : err;
}

#endif
