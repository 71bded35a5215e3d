"""The socket that takes records from beside the kernel: the proxies' access logs, the agent's notifications.

In:        unix datagrams, one or more lines each: JSON objects, which are access log records (golden/events' `record`)
           or agent notifications, whose `type` is a number (model/decode); or what our own Envoy tells, shorter
           (model/decode/lines.py).
Out:       JsonRecords, in order of arrival.
Elsewhere: model/ decodes them into the same stream as kernel events; mesh/ and its proxies send them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from observer.recording import JsonRecords
from service.failure import Failure

log = structlog.get_logger(component="records")

RECEIVE_BUFFER: Final = 4 * 2**20
"""Bytes the kernel keeps for us. A sender whose datagram finds no room waits or gets EAGAIN: it knows of the loss."""
LARGEST_DATAGRAM: Final = 256 * 1024
TURN: Final = 256
"""Datagrams taken before others on the loop may run."""


class RecordsSocket:
    """Receives records on the running loop."""

    def __init__(self, path: str, deliver: Callable[[JsonRecords], None]) -> None:
        """
        Raises: Failure when the socket cannot be made there.
        """
        self._path = Path(path)
        self._deliver = deliver
        self._buffer = bytearray(LARGEST_DATAGRAM)
        self._socket = _bound(self._path)
        self._inode = self._path.stat().st_ino
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._receive)

    def close(self) -> None:
        """Stop receiving and remove the socket."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        try:
            # Another process may have taken the path over by now.
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except OSError:
            pass

    def _receive(self) -> None:
        lines: list[bytes] = []
        view = memoryview(self._buffer)
        for _ in range(TURN):
            try:
                size = self._socket.recv_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                log.warning("cannot receive records", error=error.strerror)
                break
            lines += [line for line in bytes(view[:size]).splitlines() if line.strip()]
        if lines:
            self._deliver(JsonRecords(time.time_ns(), tuple(lines)))


def _bound(path: Path) -> socket.socket:
    try:
        found = path.stat()
    except OSError:
        pass
    else:
        if not stat.S_ISSOCK(found.st_mode):
            raise Failure(f"cannot receive records at {path}: a file is in the way; move it, or choose another path")
        _refuse_if_alive(path)
        path.unlink(missing_ok=True)
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        receiver.bind(os.fspath(path))
        path.chmod(0o660)
    except OSError as error:
        receiver.close()
        reason = error.strerror or str(error)
        raise Failure(f"cannot receive records at {path}: {reason}; choose a path in a writable folder") from error
    return receiver


def _refuse_if_alive(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return
    raise Failure(f"cannot receive records at {path}: another process does; stop it, or choose another path")
