/* A number that stands for a connection: the same whenever it is asked for, so what was chosen by it is chosen again
 * when nobody remembers. After MurmurHash3.
 */
#ifndef FLOWSCOPE_HASH_H
#define FLOWSCOPE_HASH_H

#include "layouts.h"

static __always_inline __u32 mix(__u32 hash, __u32 word)
{
	word *= 0xCC9E2D51;
	word = word << 15 | word >> 17;
	hash ^= word * 0x1B873593;
	hash = hash << 13 | hash >> 19;
	return hash * 5 + 0xE6546B64;
}

static __always_inline __u32 mix_address(__u32 hash, const union addr *address)
{
	return mix(mix(mix(mix(hash, address->ip6[0]), address->ip6[1]), address->ip6[2]), address->ip6[3]);
}

/* Every bit depends on every other, so a remainder may be taken. */
static __always_inline __u32 finish(__u32 hash)
{
	hash = (hash ^ hash >> 16) * 0x85EBCA6B;
	hash = (hash ^ hash >> 13) * 0xC2B2AE35;
	return hash ^ hash >> 16;
}

#endif
