"""Many short connections between namespaces, by a small program that costs next to nothing itself.

In:        namespaces, a port; clang.
Out:       how long connections took, and how much CPU time: of both processes, and of the whole machine.
Elsewhere: connects.c opens and serves them; web.py asks by HTTP.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.testnet import inside, sysctl

SOURCE = Path(__file__).with_suffix(".c")
USER_HZ = os.sysconf("SC_CLK_TCK")
BUSY = slice(0, 8)
"""Of a line `cpu` in /proc/stat; columns 3 and 4 are time without work."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a number of connections took."""

    connections: int
    seconds: float
    cpu_s: float
    """Of client and server; the kernel's work for a packet is mostly done in the name of who sent it."""
    machine_s: float
    """Of all cores, whoever used them."""

    @property
    def per_s(self) -> float:
        return self.connections / self.seconds

    @property
    def cpu_us(self) -> float:
        """Per connection."""
        return self.cpu_s / self.connections * 1e6

    @property
    def machine_us(self) -> float:
        """Per connection."""
        return self.machine_s / self.connections * 1e6


@dataclass(frozen=True, slots=True)
class Connects:
    """The built program."""

    path: Path

    @classmethod
    def build(cls, folder: Path) -> Connects:
        """Raises: RuntimeError when the compiler does not like it."""
        path = folder / "connects"
        done = subprocess.run(
            ["clang", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(path), str(SOURCE)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"clang: {done.stderr.strip()[-300:]}")
        return cls(path)

    @contextmanager
    def serve(self, netns: str, port: int) -> Iterator[int]:
        """A server in a namespace; gives its process id."""
        process = subprocess.Popen(["ip", "netns", "exec", netns, str(self.path), "serve", str(port)])
        try:
            _await_listening(netns, port)
            yield process.pid
        finally:
            process.kill()
            process.wait()

    def ask(self, netns: str, address: str, port: int, connections: int, server: int) -> Spent:
        """Open so many connections and close them. Raises: RuntimeError when one fails."""
        command = ["ip", "netns", "exec", netns, str(self.path), "ask", address, str(port), str(connections)]
        machine, cpu = _machine_s(), _process_s(server)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        machine, cpu = _machine_s() - machine, _process_s(server) - cpu
        if done.returncode:
            raise RuntimeError(f"connects {address}: {done.stderr.strip()}")
        clock_ns, own_ns = map(int, done.stdout.split())
        return Spent(connections, clock_ns / 1e9, cpu + own_ns / 1e9, machine)


def many_ports(netns: str) -> None:
    """Let connections of a namespace use nearly every port: what a port's last one left behind costs the next ones."""
    inside(netns, lambda: Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("1024 65535"))
    sysctl(netns, ipv4__tcp_max_syn_backlog=4096)


def _machine_s() -> float:
    first = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    idle, waiting = first[3:5]
    return (sum(map(int, first[BUSY])) - int(idle) - int(waiting)) / USER_HZ


def _process_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _await_listening(netns: str, port: int) -> None:
    wanted, deadline = f":{port:04X} 00000000:0000 0A", time.monotonic() + 10
    while time.monotonic() < deadline:
        if wanted in inside(netns, Path("/proc/thread-self/net/tcp").read_text):
            return
        time.sleep(0.01)
    raise RuntimeError(f"nothing listens on port {port} in {netns}")
