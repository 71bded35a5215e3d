"""mesh/records.py: what a proxy tells arrives in order, and what does not arrive is told."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mesh import records as records_module
from mesh.records import Records
from tests.support.waiting import eventually_async


@contextmanager
def observer(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver:
        receiver.bind(str(path))
        yield receiver


def drain(receiver: socket.socket) -> list[bytes]:
    lines: list[bytes] = []
    while True:
        try:
            lines += receiver.recv(1 << 18).splitlines()
        except BlockingIOError:
            return lines


async def test_records_travel_together_and_in_order(tmp_path: Path) -> None:
    with observer(tmp_path / "records.sock") as receiver:
        records = Records(str(tmp_path / "records.sock"))
        wanted = [b'{"n":%d}' % number for number in range(20_000)]
        for line in wanted:
            records.add(line)
        got: list[bytes] = []

        def all_here() -> bool:
            got.extend(drain(receiver))
            return len(got) == len(wanted)

        await eventually_async(all_here)
        assert got == wanted
        assert records.lost == 0
        records.close()


async def test_what_no_observer_took_is_told_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "records.sock"
    records = Records(str(path))
    for _ in range(3):
        records.add(b"{}")
    records.flush()
    assert records.lost == 3
    with observer(path) as receiver:
        records.add(b'{"type":"Request"}')
        records.flush()
        assert [json.loads(line) for line in drain(receiver)] == [{"type": "Lost", "count": 3}, {"type": "Request"}]
        records.add(b"{}")
        records.flush()
        assert drain(receiver) == [b"{}"]
    records.close()


async def test_an_observer_that_is_behind_gets_the_rest_later(tmp_path: Path) -> None:
    path = tmp_path / "records.sock"
    with observer(path) as receiver:
        records = Records(str(path))
        line = b'{"x":"' + b"x" * 1000 + b'"}'
        count = records_module.LARGEST_WAITING // len(line) + 5000
        for number in range(count):
            records.add(line)
            if number % 1000 == 0:
                records.flush()
        got: list[bytes] = []

        def enough() -> bool:
            got.extend(drain(receiver))
            told = sum(json.loads(one)["count"] for one in got if one.startswith(b'{"type":"Lost"'))
            return told == records.lost and got.count(line) + records.lost == count

        async with asyncio.timeout(20):
            while not enough():
                records.add(line)
                count += 1
                await asyncio.sleep(0.01)
        assert records.lost
        records.close()
