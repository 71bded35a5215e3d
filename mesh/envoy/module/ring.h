/* Rings of bytes in files: one for each worker of an Envoy, which writes whole records; the agent reads them.
 *
 * A ring never makes its writer wait: what finds no room is counted. The file is as long as it will ever be before the
 * first record, so that no full disk comes in between. It outlives both sides: what a writer that died has written is
 * there for the reader, and a reader that comes back finds where it was. mesh/envoy/ring.py is the other side.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_MAGIC "flowrec1"
#define RING_HEAD 4096
#ifndef RING_BYTES
#define RING_BYTES (16u << 20)
#define RING_LEAST_BYTES (64u << 10)
#endif

/* The start of the file. Positions count all bytes ever, so that full and empty differ; capacity is a power of two. */
struct ring_head {
	char magic[8];
	uint64_t capacity;
	_Alignas(64) _Atomic uint64_t written; /* the writer's */
	_Atomic uint64_t lost;		       /* records without room */
	_Alignas(64) _Atomic uint64_t read;    /* the reader's */
	uint64_t lost_told;
	_Atomic uint64_t waiting; /* not 0: the reader sleeps until the file is modified by a call */
};

struct ring {
	struct ring_head *head;
	char *data;
	uint64_t capacity;
	uint64_t read; /* at least so far */
	int file;
};

/* A new ring in a folder; smaller where there is not so much room. 0, or an error number. */
int ring_make(struct ring *ring, const char *folder, unsigned number);
/* Append a record, or count it. */
void ring_put(struct ring *ring, const char *record, size_t size);
