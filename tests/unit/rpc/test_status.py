"""Status codes have the names that Go's tools print."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rpc.status import RpcError, Status


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Status.OK, "OK"),
        (Status.CANCELLED, "Canceled"),
        (Status.UNKNOWN, "Unknown"),
        (Status.INVALID_ARGUMENT, "InvalidArgument"),
        (Status.DEADLINE_EXCEEDED, "DeadlineExceeded"),
        (Status.UNAVAILABLE, "Unavailable"),
    ],
)
def test_a_code_prints_as_in_go(status: Status, text: str) -> None:
    assert status.text == text


def test_an_error_prints_as_in_go() -> None:
    error = RpcError(Status.UNIMPLEMENTED, "GetNodes not implemented")
    assert str(error) == "rpc error: code = Unimplemented desc = GetNodes not implemented"


def test_a_code_that_grpc_does_not_define_is_unknown() -> None:
    assert Status.of(99) is Status.UNKNOWN


def test_the_client_starts_without_the_heavy_libraries() -> None:
    heavy = {"numpy", "grpc", "grpclib", "pyarrow", "google.protobuf.descriptor_pb2"}
    code = f"import sys, rpc.client; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
