"""The perf ring of one CPU: opened, mapped, copied out of, given back.

In:        a CPU, a size.
Out:       bytes of the ring; how many events the kernel could not store.
Elsewhere: perf.py has the rings of all CPUs; perf_records.py finds the records in the bytes.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
from typing import Final

import numpy as np

from bpf.libbpf import BpfError
from observer.perf_records import U8Array

# The first page of a ring's mapping, as 64-bit words (struct perf_event_mmap_page).
HEAD_WORD: Final = 1024 // 8
TAIL_WORD: Final = HEAD_WORD + 1
SYSCALL_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}
CLOCK_REALTIME: Final = 0
NEARLY_FULL: Final = 8192
"""A ring with less room than this may have refused an event: more than the longest record."""


class _Attributes(ctypes.Structure):
    """struct perf_event_attr, version 5 (112 bytes)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_watermark", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
        ("config2", ctypes.c_uint64),
        ("branch_sample_type", ctypes.c_uint64),
        ("sample_regs_user", ctypes.c_uint64),
        ("sample_stack_user", ctypes.c_uint32),
        ("clockid", ctypes.c_int32),
        ("sample_regs_intr", ctypes.c_uint64),
        ("aux_watermark", ctypes.c_uint32),
        ("sample_max_stack", ctypes.c_uint16),
        ("reserved", ctypes.c_uint16),
    )


TYPE_SOFTWARE: Final = 1
SW_BPF_OUTPUT: Final = 10
SAMPLE_TIME: Final = 1 << 2
SAMPLE_RAW: Final = 1 << 10
FORMAT_LOST: Final = 1 << 4
FLAG_WATERMARK: Final = 1 << 14
FLAG_SAMPLE_ID_ALL: Final = 1 << 18
FLAG_USE_CLOCKID: Final = 1 << 25
FLAG_FD_CLOEXEC: Final = 8


class Ring:
    """The ring of one CPU."""

    def __init__(self, cpu: int, pages: int, watermark: int) -> None:
        self.cpu = cpu
        self.fd, self.counts_lost = _open_event(cpu, watermark)
        page = mmap.PAGESIZE
        self.size = pages * page
        try:
            self._map = mmap.mmap(self.fd, page + self.size)
        except OSError as error:
            os.close(self.fd)
            raise BpfError(
                f"map the perf ring of CPU {cpu} ({pages} pages): {error.strerror}: "
                "use fewer pages, or raise kernel.perf_event_mlock_kb or CAP_IPC_LOCK",
                error.errno or 0,
            ) from None
        self._control = memoryview(self._map)[:page].cast("Q")
        self.data: U8Array = np.frombuffer(self._map, np.uint8, offset=page)
        self.tail = int(self._control[TAIL_WORD])
        self.at_risk = False
        """Room was short at the last drain, so that events may have been refused after it."""
        self.lost_seen = 0
        """Lost events reported so far, from records and from the counter."""
        self.lost_ahead = 0
        """Part of lost_seen that came from the counter, before the record that will tell the same."""

    def head(self) -> int:
        """Bytes ever written. What is read after it is at least as new."""
        return int(self._control[HEAD_WORD])

    def copy(self, head: int, into: U8Array) -> None:
        """Copy the bytes from tail to `head`, which may wrap around, into an array of just that length."""
        start = self.tail % self.size
        first = min(len(into), self.size - start)
        into[:first] = self.data[start : start + first]
        into[first:] = self.data[: len(into) - first]

    def few(self, head: int) -> bytes:
        """The bytes from tail to `head`."""
        start, count = self.tail % self.size, head - self.tail
        first = self.data[start : start + count].tobytes()
        return first if len(first) == count else first + self.data[: count - len(first)].tobytes()

    def release(self, count: int) -> bool:
        """Give `count` bytes back to the kernel; says whether it may have refused events until now.

        It may have filled what was free while a reader looked at the rest. So the head is asked for once more, after
        the room has been given back: an event that was refused before saw no later one.
        """
        before = self.tail
        self.tail += count
        self._control[TAIL_WORD] = self.tail
        return self.nearly_full(self.head() - before)

    def nearly_full(self, count: int) -> bool:
        """Whether a ring that held `count` bytes may have had no room for the next event."""
        return count > self.size - NEARLY_FULL

    def uncounted_losses(self) -> int:
        """Losses that the kernel has counted and no record has told yet (a record comes with the next event only)."""
        if not self.counts_lost:
            return 0
        total = int.from_bytes(os.read(self.fd, 16)[8:16], "little")
        missing = total - self.lost_seen
        if missing <= 0:
            return 0
        self.lost_seen += missing
        self.lost_ahead += missing
        return missing

    def untold(self, count: int) -> int:
        """How many of the losses that a record tells are new."""
        told = min(count, self.lost_ahead)
        self.lost_ahead -= told
        self.lost_seen += count - told
        return count - told

    def close(self) -> None:
        """Unmap and close; the kernel then counts events for this CPU as having no reader."""
        del self.data
        self._control.release()
        self._map.close()
        os.close(self.fd)


def _open_event(cpu: int, watermark: int) -> tuple[int, bool]:
    """A perf event that receives BPF output on one CPU; and whether the kernel counts losses for it (6.0 on).

    Raises: BpfError; its errno is ENODEV when the CPU is offline.
    """
    number = SYSCALL_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise BpfError(f"perf_event_open: not known for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    fd, code = -1, 0
    for read_format in (FORMAT_LOST, 0):
        attributes = _Attributes(
            type=TYPE_SOFTWARE,
            size=ctypes.sizeof(_Attributes),
            config=SW_BPF_OUTPUT,
            sample_period=1,
            sample_type=SAMPLE_RAW | SAMPLE_TIME,
            read_format=read_format,
            flags=FLAG_WATERMARK | FLAG_SAMPLE_ID_ALL | FLAG_USE_CLOCKID,
            wakeup_watermark=watermark,
            # Wall-clock time straight from the kernel: observers of one machine agree on it to the nanosecond,
            # which an offset measured by each of them could not give.
            clockid=CLOCK_REALTIME,
        )
        fd = libc.syscall(number, ctypes.byref(attributes), -1, cpu, -1, FLAG_FD_CLOEXEC)
        if fd >= 0:
            return fd, bool(read_format)
        code = ctypes.get_errno()
        if code != errno.EINVAL:
            break
    reason = os.strerror(code)
    if code in (errno.EPERM, errno.EACCES):
        reason = "needs root or CAP_PERFMON (kernel.perf_event_paranoid)"
    raise BpfError(f"open the perf ring of CPU {cpu}: {reason}", code)
