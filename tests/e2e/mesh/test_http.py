"""HTTP policy in the lab, as the reference article shows it: client2 may GET / of the echo servers, nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from lab.options import SOURCE_ROOT
from tests.e2e.conftest import Lab

pytestmark = pytest.mark.kernel

FILES = [str(SOURCE_ROOT / "lab/manifests" / f"client-egress-{name}.yaml") for name in ("l7-http", "only-dns")]
WAIT_S = 15.0
LINE = re.compile(r"client2-\S+:(?P<port>\d+) .* (?P<what>(to-proxy|http-\S+) .*)")


@pytest.fixture(scope="module")
def policed(lab: Lab) -> Iterator[Lab]:
    files = [word for file in FILES for word in ("-f", file)]
    store = ("--store", str(lab.run_dir / "store"))
    assert lab.flowscope("mesh", "apply", *store, *files).returncode == 0
    try:
        deadline = time.monotonic() + WAIT_S
        while status(lab, "/foo") != "403":
            assert time.monotonic() < deadline, "the policy does not come into force"
        yield lab
    finally:
        lab.flowscope("mesh", "delete", *store, *files)


def status(lab: Lab, path: str, *options: str, server: str = "echo-same-node") -> str:
    """What curl of client2 gets; 000: nothing."""
    words = ("curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", *options)
    return lab.exec("client2", *words, f"http://{server}:8080{path}").stdout


def story(lab: Lab, url: str, verdict: str) -> list[str]:
    """What the client's side of the newest request for `url` looks like, once it is whole."""
    deadline = time.monotonic() + WAIT_S
    while True:
        shown = lab.flowscope(
            "observe", "--server", lab.relay, "--last", "100", "--from-pod", "cilium-test/client2"
        ).stdout.splitlines()
        found = [match for match in map(LINE.search, shown) if match]
        ports = [
            one["port"] for one in found if one["what"].startswith(f"http-request {verdict} (") and url in one["what"]
        ]
        mine = [one["what"] for one in found if ports and one["port"] == ports[-1]]
        if len(mine) >= 6 or time.monotonic() > deadline:
            return mine


@pytest.mark.parametrize("server", ["echo-same-node", "echo-other-node"])
def test_an_allowed_request_reads_as_in_the_reference(policed: Lab, server: str) -> None:
    assert status(policed, "/", server=server) == "200"
    url = f"http://{server}:8080/"
    assert story(policed, f"GET {url})", "FORWARDED") == [
        "to-proxy FORWARDED (TCP Flags: SYN)",
        "to-proxy FORWARDED (TCP Flags: ACK)",
        "to-proxy FORWARDED (TCP Flags: ACK, PSH)",
        f"http-request FORWARDED (HTTP/1.1 GET {url})",
        "to-proxy FORWARDED (TCP Flags: ACK, FIN)",
        "to-proxy FORWARDED (TCP Flags: ACK)",
    ]


def test_a_denied_request_reads_as_in_the_reference(policed: Lab) -> None:
    denied = policed.exec("client2", "curl", "-s", "-i", "-m", "5", "http://echo-same-node:8080/foo").stdout
    assert denied.startswith("HTTP/1.1 403 Forbidden")
    assert "content-length: 15\ncontent-type: text/plain" in denied.replace("\r", "")
    assert denied.rstrip().endswith("Access denied")
    assert status(policed, "/", "-I") == "403"
    url = "http://echo-same-node:8080/foo"
    assert story(policed, f"GET {url})", "DROPPED")[2:] == [
        "to-proxy FORWARDED (TCP Flags: ACK, PSH)",
        f"http-request DROPPED (HTTP/1.1 GET {url})",
        "to-proxy FORWARDED (TCP Flags: ACK, FIN)",
        "to-proxy FORWARDED (TCP Flags: ACK)",
    ]
