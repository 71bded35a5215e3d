"""observer/records_socket.py: datagrams become records, in order, wherever they come from."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from observer.recording import JsonRecords
from observer.records_socket import RecordsSocket
from service.failure import Failure
from tests.support.waiting import eventually_async


def send(path: Path, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, str(path))


async def test_records_arrive_in_order(tmp_path: Path) -> None:
    path, got = tmp_path / "records.sock", list[JsonRecords]()
    receiver = RecordsSocket(str(path), got.append)
    send(path, b'{"type": "Request"}', b'{"type": "Response"}\n{"type": 2}\n', b" \n")
    await eventually_async(lambda: sum(len(one.lines) for one in got) == 3)
    assert [line for one in got for line in one.lines] == [
        b'{"type": "Request"}',
        b'{"type": "Response"}',
        b'{"type": 2}',
    ]
    receiver.close()
    assert not path.exists()


async def test_the_socket_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "records.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    RecordsSocket(str(path), lambda _: None).close()


async def test_the_socket_of_a_living_process_is_not(tmp_path: Path) -> None:
    path = tmp_path / "records.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as alive:
        alive.bind(str(path))
        with pytest.raises(Failure, match="another process does"):
            RecordsSocket(str(path), lambda _: None)


async def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "records.sock"
    path.write_text("precious")
    with pytest.raises(Failure, match="a file is in the way"):
        RecordsSocket(str(path), lambda _: None)
    assert path.read_text() == "precious"


async def test_a_flood_lets_others_run(tmp_path: Path) -> None:
    path, got = tmp_path / "records.sock", list[JsonRecords]()
    receiver = RecordsSocket(str(path), got.append)

    def flood() -> None:
        send(path, *[b"{}"] * 2000)

    turns = 0
    flooding = asyncio.create_task(asyncio.to_thread(flood))
    while not flooding.done():
        turns += 1
        await asyncio.sleep(0)
    await eventually_async(lambda: sum(len(one.lines) for one in got) == 2000)
    assert turns > 1
    receiver.close()
