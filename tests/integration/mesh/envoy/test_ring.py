"""Rings of records: the writer in C, which Envoy has, and the reader in Python, which the agent has."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.envoy import module
from mesh.envoy.ring import HEAD, LARGEST, BrokenRing, Ring
from mesh.inotify import MODIFIED, Inotify

SMALL = "-DRING_BYTES=4096u", "-DRING_LEAST_BYTES=1024u"
SMALL_BYTES = 4096


def built(folder: Path, *options: str) -> ctypes.CDLL:
    """The writer as a library of its own."""
    library = folder / "ring.so"
    source = module.FOLDER.parent / "ring.c"
    subprocess.run(["clang", "-std=gnu11", "-shared", "-fPIC", *options, str(source), "-o", str(library)], check=True)
    found = ctypes.CDLL(str(library))
    found.ring_put.restype = None
    found.ring_put.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return built(tmp_path_factory.mktemp("small"), *SMALL)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return built(tmp_path_factory.mktemp("usual"))


class Writer:
    def __init__(self, library: ctypes.CDLL, folder: Path) -> None:
        self._library = library
        self._ring = ctypes.create_string_buffer(128)
        self.error: int = library.ring_make(self._ring, os.fsencode(folder), 0)

    def put(self, record: bytes) -> None:
        self._library.ring_put(self._ring, record, len(record))


def ring_in(folder: Path) -> Ring:
    (path,) = folder.glob("*.ring")
    return Ring(path)


STEPS = st.lists(
    st.one_of(
        st.integers(1, 700).map(lambda size: ("put", size)),
        st.sampled_from([("take", 900), ("take", 4096), ("keep", 0), ("reopen", 0)]),
    ),
    max_size=120,
)


@settings(max_examples=60)
@given(STEPS)
def test_each_record_is_read_once_and_in_order_or_counted(small: ctypes.CDLL, steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(small, Path(folder))
        ring = ring_in(Path(folder))
        waiting: list[bytes] = []
        taken: list[bytes] = []
        lost = told = 0
        for number, (what, size) in enumerate(steps):
            if what == "put":
                record = f"{number}".encode().ljust(size, b".")[:size] + b"\n"
                room = SMALL_BYTES - sum(map(len, taken)) - sum(map(len, waiting))
                writer.put(record)
                if len(record) <= room:
                    waiting.append(record)
                else:
                    lost += 1
            elif what == "take":
                found = ring.take(size)
                count = found.count(b"\n")
                assert found == b"".join(waiting[:count])
                assert count == len(waiting) or len(found) + len(waiting[count]) > size, "as much as there may be"
                taken += waiting[:count]
                del waiting[:count]
            elif what == "keep":
                ring.keep()
                taken.clear()
            else:
                ring.close()
                ring = ring_in(Path(folder))
                waiting, taken = [*taken, *waiting], []
            told += ring.new_losses()
        assert told == lost
        while found := ring.take(SMALL_BYTES):
            assert b"".join(waiting).startswith(found)
            waiting = waiting[found.count(b"\n") :]
        assert not waiting
        ring.close()


async def test_the_writer_rings_once_when_the_reader_sleeps(small: ctypes.CDLL, tmp_path: Path) -> None:
    writer = Writer(small, tmp_path)
    ring = ring_in(tmp_path)
    rung: list[None] = []
    bell = Inotify(lambda: rung.append(None))
    bell.watch(tmp_path, MODIFIED)

    async def rings(record: bytes) -> int:
        rung.clear()
        writer.put(record)
        for _ in range(3):
            # The kernel tells at once; the loop looks with each turn.
            await asyncio.sleep(0)
        return len(rung)

    assert await rings(b"a\n") == 0, "an awake reader needs no call to the kernel"
    ring.sleep()
    assert [await rings(one) for one in (b"b\n", b"c\n")] == [1, 0]
    assert ring.take(100) == b"a\nb\nc\n"
    bell.close()


def test_a_reader_knows_whether_there_is_a_writer(small: ctypes.CDLL, tmp_path: Path) -> None:
    writer = Writer(small, tmp_path)
    writer.put(b"a\n")
    ring = ring_in(tmp_path)
    assert not ring.is_abandoned()
    ring.remove()
    assert not list(tmp_path.iterdir())
    program = (
        "import ctypes, os, sys; library = ctypes.CDLL(sys.argv[1]); ring = ctypes.create_string_buffer(128);"
        "library.ring_make(ring, os.fsencode(sys.argv[2]), 0); library.ring_put(ring, b'last\\n', 5)"
    )
    subprocess.run(["python3", "-c", program, small._name, str(tmp_path)], check=True)
    left = ring_in(tmp_path)
    assert left.is_abandoned()
    assert left.take(100) == b"last\n", "what a writer has told before it died is there"


@pytest.mark.parametrize(
    "content", [b"", b"x" * 100, bytes(HEAD + 1024), b"flowrec1" + (512).to_bytes(8, "little") + bytes(HEAD)]
)
def test_other_files_are_no_rings(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.ring"
    path.write_bytes(content)
    with pytest.raises(BrokenRing, match=r"x\.ring"):
        Ring(path)


def test_positions_that_make_no_sense_yield_no_more_than_there_is(small: ctypes.CDLL, tmp_path: Path) -> None:
    Writer(small, tmp_path)
    (path,) = tmp_path.glob("*.ring")
    for written, read in ((2**63, 0), (0, 2**63), (2**64 - 1, 5)):
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as found:
            found[64:72] = written.to_bytes(8, "little")
            found[128:136] = read.to_bytes(8, "little")
        ring = Ring(path)
        assert len(ring.take(2**20)) <= SMALL_BYTES
        ring.close()


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A small one."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.kernel
def test_where_there_is_little_room_a_ring_is_small(usual: ctypes.CDLL, tmp_path: Path) -> None:
    with disk(tmp_path, "300k"):
        writer = Writer(usual, tmp_path)
        assert writer.error == 0
        ring = ring_in(tmp_path)
        for number in range(200):
            writer.put(f"{number:01999}\n".encode())
        found = b""
        while more := ring.take(2**20):
            found += more
        assert len(found) == 2000 * (200 - ring.new_losses())
        assert 64 * 1024 < len(found) < 300 * 1024
        ring.close()


@pytest.mark.kernel
def test_where_there_is_no_room_there_is_no_ring(usual: ctypes.CDLL, tmp_path: Path) -> None:
    with disk(tmp_path, "40k"):
        assert Writer(usual, tmp_path).error == errno.ENOSPC
        assert not list(tmp_path.iterdir())
    assert Writer(usual, tmp_path / "missing").error == errno.ENOENT
    assert Writer(usual, tmp_path / ("x" * 5000)).error == errno.ENAMETOOLONG
    assert Writer(usual, tmp_path).error == 0
    assert (tmp_path / next(tmp_path.glob("*.ring")).name).stat().st_size == HEAD + LARGEST
