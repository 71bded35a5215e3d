#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(struct ring_head) <= RING_HEAD, "the head has a page");

static int ring_fill(struct ring *ring, int file)
{
	uint64_t capacity = RING_BYTES;
	int error;

	/* The lock says that we live: nothing else tells a reader for sure. */
	if (flock(file, LOCK_EX | LOCK_NB))
		return errno;
	while ((error = posix_fallocate(file, 0, (off_t)(RING_HEAD + capacity))) && capacity > RING_LEAST_BYTES) {
		capacity /= 2;
		if (ftruncate(file, 0))
			return errno;
	}
	if (error)
		return error;
	/* Its pages are there before the first request has to wait for them. */
	char *bytes = mmap(NULL, RING_HEAD + capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
	if (bytes == MAP_FAILED)
		return errno;
	*ring = (struct ring){
		.head = (struct ring_head *)bytes,
		.data = bytes + RING_HEAD,
		.capacity = capacity,
		.file = file,
	};
	ring->head->capacity = capacity;
	memcpy(ring->head->magic, RING_MAGIC, sizeof(ring->head->magic));
	return 0;
}

int ring_make(struct ring *ring, const char *folder, unsigned number)
{
	char hidden[PATH_MAX], path[PATH_MAX];
	struct timespec now;

	/* A name that no other Envoy has had; readers take what ends in .ring. */
	clock_gettime(CLOCK_REALTIME, &now);
	int length = snprintf(hidden, sizeof(hidden), "%s/%lld%09ld-%u.new", folder, (long long)now.tv_sec, now.tv_nsec,
			      number);
	if (length < 0 || (size_t)length >= sizeof(hidden) - 1)
		return ENAMETOOLONG;
	snprintf(path, sizeof(path), "%.*s.ring", length - 4, hidden);

	int file = open(hidden, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file < 0)
		return errno;
	int error = ring_fill(ring, file);
	if (!error && rename(hidden, path)) {
		error = errno;
		munmap(ring->head, RING_HEAD + ring->capacity);
	}
	if (error) {
		unlink(hidden);
		close(file);
	}
	return error;
}

static void ring_wake(struct ring *ring)
{
	static const uint64_t nothing;

	atomic_store_explicit(&ring->head->waiting, 0, memory_order_relaxed);
	/* What is written through the mapping tells nobody; this does. The bytes are there: no disk can be too full. */
	ssize_t done = pwrite(ring->file, &nothing, sizeof(nothing), offsetof(struct ring_head, waiting));
	(void)done;
}

void ring_put(struct ring *ring, const char *record, size_t size)
{
	struct ring_head *head = ring->head;
	uint64_t written = atomic_load_explicit(&head->written, memory_order_relaxed);

	if (written + size - ring->read > ring->capacity) {
		ring->read = atomic_load_explicit(&head->read, memory_order_acquire);
		if (written + size - ring->read > ring->capacity) {
			atomic_fetch_add_explicit(&head->lost, 1, memory_order_relaxed);
			return;
		}
	}
	uint64_t at = written & (ring->capacity - 1);
	size_t first = size < ring->capacity - at ? size : ring->capacity - at;
	memcpy(ring->data + at, record, first);
	memcpy(ring->data, record + first, size - first);
	atomic_store_explicit(&head->written, written + size, memory_order_release);
	/* Without a fence, a record in the very moment in which the reader falls asleep waits for the next one, or for the
	 * reader's tick; with one, each record waits here until all of it has left the processor, 150 ns. */
	if (atomic_load_explicit(&head->waiting, memory_order_relaxed))
		ring_wake(ring);
}
