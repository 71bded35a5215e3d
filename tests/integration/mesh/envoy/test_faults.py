"""Servers, clients and Envoy that misbehave: contained, answered, told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.integration.mesh.envoy.test_protocols import serving
from tests.integration.mesh.envoy.test_requests import GET_ROOT, http, policy
from tests.support.policynet import PolicyNet, try_tcp
from tests.support.proxied import ask, ask_raw, echo_server
from tests.support.testnet import inside
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


GRPC_CLIENT = """
import sys, grpc
channel = grpc.insecure_channel(sys.argv[1])
for method in ("Echo", "Other"):
    try:
        print(channel.unary_unary(f"/pkg.Service/{method}")(b"abc", timeout=5))
    except grpc.RpcError as error:
        print(error.code().name)
"""


def test_grpc_passes_with_its_trailers_and_is_judged_by_its_path(mesh: PolicyNet) -> None:
    mesh.apply(policy(http("{method: POST, path: /pkg.Service/Echo}")))
    method = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pkg.Service", {"Echo": method}),))
    target = f"{mesh['p'].ip}:8080"
    inside(mesh["p"].pod.netns, lambda: server.add_insecure_port(target))
    server.start()
    words = ["ip", "netns", "exec", mesh["s"].pod.netns, sys.executable, "-c", GRPC_CLIENT, target]
    try:
        answers = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    finally:
        server.stop(None)
    assert answers == ["b'abc'", "PERMISSION_DENIED"]
    told = [(one["type"], one["verdict"], one["http"]["method"]) for one in mesh.envoys[mesh.near.number].records(3)]
    assert told == [("Request", "Forwarded", "POST"), ("Response", "Forwarded", "POST"), ("Request", "Denied", "POST")]


@pytest.mark.parametrize(
    ("said", "client_gets", "code"),
    [
        (b"", b"HTTP/1.1 503", 503),
        (b"HTTP/1.1 2", b"HTTP/1.1 502", 502),
        (b"\x00\xff no HTTP\r\n\r\n", b"HTTP/1.1 502", 502),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", b"HTTP/1.1 200", 200),
    ],
)
def test_a_server_that_breaks_off_is_an_answer_with_a_code(
    mesh: PolicyNet, said: bytes, client_gets: bytes, code: int
) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    with serving(mesh["p"].pod.netns, 8080, said, close=True):
        got = ask_raw(mesh["s"].pod.netns, mesh["p"].ip, 8080, b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    assert got.startswith(client_gets)
    told = [(one["type"], one["http"].get("code")) for one in mesh.envoys[mesh.near.number].records(2)]
    assert told == [("Request", None), ("Response", code)]


HEAD = b"%s / HTTP/1.1\r\nhost: h\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD % b"POST" + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
        HEAD % b"POST" + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD % b"POST" + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        HEAD % b"POST" + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        HEAD % b"POST" + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        HEAD % b"POST" + b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
        HEAD % b"POST" + b"content-length: +4\r\n\r\nabcd",
        HEAD % b"POST" + b"content-length: 4, 4\r\n\r\nabcd",
        HEAD % b"GET" + b"x: a\r\n transfer-encoding: chunked\r\n\r\n",
        HEAD % b"GET" + b"x: a\rcontent-length: 5\r\n\r\n",
        HEAD % b"GET" + b"x: a\x00b\r\n\r\n",
        HEAD % b"GET" + b"x\xff\xfe: a\r\n\r\n",
        b"GET / HTTP/1.1\nhost: h\nx: a\n\n",
        b"GET / HTTP/1.1\r\nhost: h\r\nhost: other\r\n\r\n",
        b"GET /\xff\xc3( HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET / x HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\n" + b"x: y\r\n" * 5000 + b"\r\n",
    ],
)
def test_what_servers_could_read_in_another_way_is_refused_or_written_anew(mesh: PolicyNet, sent: bytes) -> None:
    mesh.apply(policy(http("{path: /}")))
    with serving(mesh["p"].pod.netns, 8080, EMPTY) as heard:
        status = int(ask_raw(mesh["s"].pod.netns, mesh["p"].ip, 8080, sent).split()[1])
    records = mesh.envoys[mesh.near.number].records(1)
    forwarded = [one for one in records if (one["type"], one["verdict"]) == ("Request", "Forwarded")]
    assert len(forwarded) == len(heard), "each request that a server got has been told"
    assert status in ((200,) if heard else (400, 403, 431, 501))
    for one in heard:
        head, _, _ = one.partition(b"\r\n\r\n")
        framing = re.findall(rb"(?im)^(content-length|transfer-encoding): (\S+)\r?$", head)
        assert len(framing) <= 1
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]|\x00", head)
        assert b"/x" not in head.split(b"\r\n")[0]


def test_without_envoy_the_kernel_tells_why_nothing_passes(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    host = mesh.envoys[mesh.near.number]
    s, p = mesh["s"].pod, mesh["p"].pod
    pid = host.node.process.pid
    host.stop_agent()
    try:
        os.kill(pid, signal.SIGKILL)
        # A killed process keeps its sockets for a moment.
        eventually(lambda: not try_tcp(s.netns, p.netns, p.ipv4, 8080))
        assert "drop 180" in {*mesh.whats()}
    finally:
        host.start_agent()
    with echo_server(p.netns, 8080):
        eventually(lambda: host.run(host.node.is_listening()))
        assert ask(s.netns, p.ipv4, 8080).status == 200
