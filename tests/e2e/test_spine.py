"""From a packet to the line that the CLI prints: two requests of client2, as the reference article shows them.

client2 and echo-same-node share a node, echo-other-node and the DNS servers are elsewhere. What is compared is order
and form; ports, hashes, numbers and times differ from run to run.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import Lab

pytestmark = pytest.mark.kernel

LINE = re.compile(
    r"(?P<time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\.\d{3}): "
    r"cilium-test/client2-[a-z0-9]+-[a-z0-9]{5}:(?P<port>\d+) \(ID:\d+\) (?P<arrow>->|<-|<>) "
    r"(?P<to>[a-z-]+/[a-z-]+)-[a-z0-9]+-[a-z0-9]{5}:(?P<dport>\d+) \(ID:\d+\) "
    r"(?P<point>to-[a-z]+) FORWARDED \((?P<what>UDP|TCP Flags: [A-Z, ]+)\)"
)
FLAGS = ["SYN", "ACK", "ACK, PSH", "ACK, FIN", "ACK"]
WAIT_S = 10.0
QUIET_S = 1.3


class Lines:
    """What `observe -f` has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.seen: list[str] = []
        self._process = process
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.seen.append(line.rstrip("\n"))

    def after(self, start: int, count: int) -> list[str]:
        """`count` lines behind the first `start` ones; fewer when they do not come in time."""
        deadline = time.monotonic() + WAIT_S
        while len(self.seen) < start + count and time.monotonic() < deadline:
            time.sleep(0.02)
        self.settle()  # one line too many is a mistake, too
        return self.seen[start:]

    def settle(self) -> None:
        """Wait until nothing has come for longer than a relay holds back what it sorts."""
        before = -1
        while before != len(self.seen):
            before = len(self.seen)
            time.sleep(QUIET_S)


@contextmanager
def observing(lab: Lab) -> Iterator[Lines]:
    """`flowscope observe --from-pod cilium-test/client2 -f`, once it is known to show what happens."""
    process = lab.observe("--from-pod", "cilium-test/client2", "-f")
    try:
        lines = Lines(process)
        deadline = time.monotonic() + WAIT_S
        while not lines.seen:
            assert time.monotonic() < deadline, "observe prints nothing"
            request(lab, "echo-same-node")
        lines.settle()
        yield lines
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(5)


def request(lab: Lab, server: str) -> None:
    answer = lab.exec("client2", "curl", "-s", "-o", "/dev/null", "-m", "5", f"{server}:8080/")
    assert answer.returncode == 0, answer.stderr


def parsed(lines: list[str]) -> list[dict[str, str]]:
    found = []
    for line in lines:
        match = LINE.fullmatch(line)
        assert match, line
        found.append(match.groupdict())
    return found


def dns(flows: list[dict[str, str]]) -> None:
    """Two questions from one socket, each first into the tunnel, then at the server's node."""
    assert {flow["to"] for flow in flows} == {"kube-system/coredns"}
    assert {(flow["dport"], flow["what"]) for flow in flows} == {("53", "UDP")}
    assert len({flow["port"] for flow in flows}) == 1
    assert sorted(flow["point"] for flow in flows) == ["to-endpoint"] * 2 + ["to-overlay"] * 2
    assert flows[0]["point"] == "to-overlay"
    assert flows[-1]["point"] == "to-endpoint"


def test_the_reference_s_two_requests_look_as_the_reference_shows_them(lab: Lab) -> None:
    with observing(lab) as lines:
        start = len(lines.seen)
        request(lab, "echo-same-node")
        same = parsed(lines.after(start, 9))
        start = len(lines.seen)
        request(lab, "echo-other-node")
        other = parsed(lines.after(start, 14))

    dns(same[:4])
    assert [(flow["to"], flow["point"], flow["what"]) for flow in same[4:]] == [
        ("cilium-test/echo-same-node", "to-endpoint", f"TCP Flags: {flags}") for flags in FLAGS
    ]
    dns(other[:4])
    assert [(flow["to"], flow["point"], flow["what"]) for flow in other[4:]] == [
        ("cilium-test/echo-other-node", point, f"TCP Flags: {flags}")
        for flags in FLAGS
        for point in ("to-overlay", "to-endpoint")
    ]
    # Our datapath always knows which side began, also where the original does not (its `<>`).
    assert {flow["arrow"] for flow in same + other} == {"->"}
    times = [flow["time"] for flow in same + other]
    assert times == sorted(times)
