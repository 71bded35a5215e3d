"""Shapes of requests that readers understand differently: what policy has judged is what the server gets."""

from __future__ import annotations

import socket

import pytest

from tests.integration.mesh.envoy.test_protocols import serving
from tests.integration.mesh.envoy.test_requests import http, policy, told
from tests.support.policynet import PolicyNet
from tests.support.proxied import ask_raw
from tests.support.testnet import inside

pytestmark = pytest.mark.kernel

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
RULE = "{path: /ok, host: h, headers: ['X-Role user']}"
GOOD = b"host: h\r\nx-role: user\r\n"


@pytest.mark.parametrize(
    "data",
    [
        # Line ends without a carriage return, blank lines, other blanks than one: put right before anybody judges.
        b"GET /ok HTTP/1.1\nhost: h\nx-role: user\n\n",
        b"\r\n\r\nGET /ok HTTP/1.1\r\n" + GOOD + b"\r\n",
        b"GET  /ok\tHTTP/1.1\r\n" + GOOD + b"\r\n",
        # A value that goes on in the next line is one value.
        b"GET /ok HTTP/1.1\r\nhost: h\r\nx-role:\r\n user\r\n\r\n",
        # What a request says of where it goes counts more than its header.
        b"GET http://h/ok HTTP/1.1\r\nhost: evil\r\nx-role: user\r\n\r\n",
        # A body is a body, whatever is in it, and is cut into pieces anew.
        b"POST /ok HTTP/1.1\r\n" + GOOD + b"content-length: 18\r\n\r\nGET /evil HTTP/1.1",
        b"POST /ok HTTP/1.1\r\n" + GOOD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-evil: 1\r\n\r\n",
    ],
)
def test_what_is_put_right_is_what_was_judged(mesh: PolicyNet, data: bytes) -> None:
    mesh.apply(policy(http(RULE)))
    with serving(mesh["p"].pod.netns, 8080, ANSWER, close=True) as heard:
        assert ask_raw(mesh["s"].pod.netns, mesh["p"].ip, 8080, data).startswith(b"HTTP/1.1 200")
    [got] = heard
    head, *_ = got.partition(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")
    headers = [tuple(one.split(b": ", 1)) for one in rest]
    assert first.split(b" ")[1:] == [b"/ok", b"HTTP/1.1"]
    assert [value for name, value in headers if name in (b"host", b"x-role")] == [b"h", b"user"]
    assert not {b"\r", b"\n"} & {bytes((byte,)) for byte in head.replace(b"\r\n", b"")}
    assert b"x-evil" not in got


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /ok HTTP/1.1\r\nhost: h\r\nx-role: user\r\n admin\r\n\r\n", 403),
        (b"GET /ok HTTP/1.1\r\nhost: h\r\nx-role: user\rx-evil: 1\r\n\r\n", 403),
        (b"GET /ok HTTP/1.1\r\n" + GOOD + b"x-role: admin\r\n\r\n", 403),
        (b"GET /ok HTTP/1.1\r\n" + GOOD + b"host: evil\r\n\r\n", 403),
        (b"GET http://evil/ok HTTP/1.1\r\n" + GOOD + b"\r\n", 403),
        (b"GET /a/../ok HTTP/1.1\r\n" + GOOD + b"\r\n", 403),
        # A header that is said to end at the proxy would not be there for the server.
        (b"GET /ok HTTP/1.1\r\n" + GOOD + b"connection: x-role\r\n\r\n", 403),
        (b"GET /ok HTTP/1.1\r\nhost: h\r\nx-role : user\r\n\r\n", 400),
        (b"GET /ok HTTP/1.1\r\nhost: h\r\n x-role: user\r\n\r\n", 400),
        (b"POST /ok HTTP/1.1\r\n" + GOOD + b"content-length: +4\r\n\r\nabcd", 400),
        (b"POST /ok HTTP/1.1\r\n" + GOOD + b"content-length: 4, 4\r\n\r\nabcd", 400),
        (
            b"POST /ok HTTP/1.1\r\n" + GOOD + b"transfer-encoding:\r\n chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /ok HTTP/1.1\r\n" + GOOD + b"transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n", 501),
    ],
)
def test_what_could_be_understood_otherwise_does_not_pass(mesh: PolicyNet, data: bytes, status: int) -> None:
    mesh.apply(policy(http(RULE)))
    with serving(mesh["p"].pod.netns, 8080, ANSWER, close=True) as heard:
        answer = ask_raw(mesh["s"].pod.netns, mesh["p"].ip, 8080, data)
        assert int(answer.split(b" ")[1]) == status
        [record] = mesh.envoys[mesh.near.number].records(1)
    assert heard == []
    assert (record["type"], record["http"].get("code")) == (
        ("Request", None) if status == 403 else ("Response", status)
    )


def test_a_request_behind_another_one_is_judged_by_itself(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(RULE)))
    both = b"GET /ok HTTP/1.1\r\nhost: h\nx-role: user\n\nGET /evil HTTP/1.1\r\n" + GOOD + b"\r\n"
    with serving(mesh["p"].pod.netns, 8080, ANSWER, close=True) as heard:
        assert ask_raw(mesh["s"].pod.netns, mesh["p"].ip, 8080, both).startswith(b"HTTP/1.1 200")
        records = told(mesh, 3)
    assert ("Request", "Denied", "Egress", "http://h/evil") in records
    assert len(heard) == 1
    assert b"evil" not in heard[0]


def test_connect_is_judged_by_whom_it_asks_for_and_then_carries_anything(mesh: PolicyNet) -> None:
    mesh.apply(policy(http("{method: CONNECT, host: 'db:5432'}")))

    def ask(target: bytes) -> tuple[bytes, bytes]:
        with socket.create_connection((mesh["p"].ip, 8080), 10) as sock:
            sock.sendall(b"CONNECT %s HTTP/1.1\r\nhost: %s\r\n\r\n" % (target, target))
            status = sock.recv(65536).split(b"\r\n")[0]
            if b"200" not in status:
                return status, b""
            sock.sendall(b"\x00\xff anything")
            return status, sock.recv(100)

    with serving(mesh["p"].pod.netns, 8080, b"HTTP/1.1 200 OK\r\n\r\n") as heard:
        assert inside(mesh["s"].pod.netns, lambda: ask(b"db:5432")) == (b"HTTP/1.1 200 OK", b"\x00\xff anything")
        assert inside(mesh["s"].pod.netns, lambda: ask(b"db:22")) == (b"HTTP/1.1 403 Forbidden", b"")
    assert [one.split(b"\r\n")[0] for one in heard] == [b"CONNECT db:5432 HTTP/1.1"]
    requests = [one for one in told(mesh, 3) if one[0] == "Request"]
    assert [one[1] for one in requests] == ["Forwarded", "Denied"]
    assert [one[3] for one in requests] == ["http://db:5432", "http://db:22"]
