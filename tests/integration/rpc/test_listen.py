"""What stands in the way of a listener is said in one line, with the remedy."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from rpc.listen import why_not_unix
from rpc.server import Server
from service.failure import Failure


async def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Failure, match=f"cannot listen on 127.0.0.1:{port}: the port is taken; stop the process"):
            await Server([]).listen(f"127.0.0.1:{port}", insecure=True)


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(Failure, match="this machine has no such address"):
        await Server([]).listen("192.0.2.1:0", insecure=True)


async def test_a_broken_address_is_refused() -> None:
    with pytest.raises(Failure, match="cannot listen: address 'nowhere' has no port"):
        await Server([]).listen("nowhere", insecure=True)


async def test_tcp_without_tls_must_be_allowed_explicitly() -> None:
    with pytest.raises(Failure, match="without TLS: give a certificate and a key file, or allow plain TCP"):
        await Server([]).listen("127.0.0.1:0")


async def test_the_address_that_was_bound_is_told() -> None:
    server = Server([])
    address = await server.listen("127.0.0.1:0", insecure=True)
    assert int(address.rpartition(":")[2]) > 0
    await server.close(0)


async def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    server = Server([])
    await server.listen(f"unix://{path}")
    assert oct(path.stat().st_mode & 0o777) == "0o660"
    await server.close(0)
    assert not path.exists()


async def test_the_socket_of_a_live_process_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    server = Server([])
    await server.listen(f"unix://{path}")
    with pytest.raises(Failure, match="another process serves there"):
        await Server([]).listen(f"unix://{path}")
    assert path.exists()
    await server.close(0)


async def test_a_file_is_not_taken_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("precious")
    with pytest.raises(Failure, match="a file is in the way"):
        await Server([]).listen(f"unix://{path}")
    assert path.read_text() == "precious"


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=f"folder {tmp_path}/none does not exist"):
        await Server([]).listen(f"unix://{tmp_path}/none/s.sock")


async def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="too long for a socket"):
        await Server([]).listen(f"unix://{tmp_path}/{'x' * 120}")


def test_a_folder_without_permission_is_named() -> None:
    # Root, who runs tests elsewhere, may write everywhere; so this is about the words alone.
    error = PermissionError(errno.EACCES, "Permission denied")
    assert "no permission to write in /run/x; run as its owner" in why_not_unix("/run/x/s.sock", error)


async def test_another_process_may_have_taken_the_path_over(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    server = Server([])
    await server.listen(f"unix://{path}")
    path.unlink()
    path.write_text("theirs")
    await server.close(0)
    assert path.read_text() == "theirs"
