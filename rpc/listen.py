"""Listening sockets, and why one cannot be had: each reason is one line with its remedy.

In:        targets, a TLS context, what makes a protocol per connection.
Out:       listeners; the socket file of a unix listener goes when its listener closes, a stale one before it opens.
Elsewhere: server.py speaks on the connections.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable
from typing import Final

import structlog

from rpc.target import Target, join_host_port
from service.failure import Failure

log = structlog.get_logger(component="rpc")

SOCKET_MODE: Final = 0o660

Make = Callable[[], asyncio.Protocol]


class Listener:
    """One listening socket; the socket file of a unix listener goes with it."""

    def __init__(self, server: asyncio.Server, address: str, path: str = "") -> None:
        self.address = address
        self._server = server
        self._path = path
        self._inode = os.stat(path).st_ino if path else 0

    def close(self) -> None:
        self._server.close()
        if self._path:
            try:
                # Another process may have taken the path over by now.
                if os.stat(self._path).st_ino == self._inode:
                    os.unlink(self._path)
            except OSError:
                pass


async def listen_tcp(target: Target, context: ssl.SSLContext | None, make: Make) -> Listener:
    loop = asyncio.get_running_loop()
    try:
        # reuse_address: a restart must not wait for connections in TIME_WAIT.
        server = await loop.create_server(
            make, target.host or None, target.port, ssl=context, reuse_address=True, backlog=1024
        )
    except OSError as error:
        raise Failure(why_not_tcp(str(target), error)) from error
    port = server.sockets[0].getsockname()[1]
    return Listener(server, join_host_port(target.host, port))


def why_not_tcp(address: str, error: OSError) -> str:
    """One line for a person, with the remedy."""
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {address}: the host name is not known; use an address of this machine"
    remedy = {
        errno.EADDRINUSE: "the port is taken; stop the process that listens there, or choose another port",
        errno.EADDRNOTAVAIL: "this machine has no such address; use one of its own, or :port for all",
        errno.EACCES: "not permitted; choose a port of 1024 or above, or give the process CAP_NET_BIND_SERVICE",
    }
    return f"cannot listen on {address}: {remedy.get(error.errno or 0, error.strerror or str(error))}"


async def listen_unix(path: str, make: Make) -> Listener:
    _clear_stale_socket(path)
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_unix_server(make, path, backlog=1024)
        os.chmod(path, SOCKET_MODE)
    except OSError as error:
        raise Failure(why_not_unix(path, error)) from error
    return Listener(server, f"unix://{path}", path)


def why_not_unix(path: str, error: OSError) -> str:
    """One line for a person, with the remedy."""
    folder = os.path.dirname(path) or "."
    remedy = {
        errno.EACCES: f"no permission to write in {folder}; run as its owner, or choose another path",
        errno.EROFS: f"{folder} is read-only; choose another path",
        errno.ENOENT: f"folder {folder} does not exist; create it, or choose another path",
        errno.ENAMETOOLONG: "the path is too long for a socket (107 bytes); choose a shorter one",
    }
    if "too long" in str(error):
        return f"cannot listen on unix://{path}: {remedy[errno.ENAMETOOLONG]}"
    return f"cannot listen on unix://{path}: {remedy.get(error.errno or 0, error.strerror or str(error))}"


def _clear_stale_socket(path: str) -> None:
    """Remove the socket of a process that died. Raises: Failure when somebody serves on it, or it is no socket."""
    try:
        found = os.stat(path)
    except OSError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Failure(f"cannot listen on unix://{path}: a file is in the way; move it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except PermissionError as error:
            raise Failure(f"cannot listen on unix://{path}: the socket of another user is in the way") from error
        except OSError as error:
            # A full backlog or a slow owner: somebody is there.
            raise Failure(f"cannot listen on unix://{path}: another process serves there") from error
        else:
            raise Failure(
                f"cannot listen on unix://{path}: another process serves there; stop it, or choose another path"
            )
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Failure(
            f"cannot listen on unix://{path}: the stale socket cannot be removed: {error.strerror}"
        ) from error
    log.info("stale socket removed", path=path)
