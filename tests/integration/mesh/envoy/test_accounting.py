"""Every request is told or counted as lost: agents are killed and stopped, observers come and go.

Each request here is refused, so there is one record for each.
"""

from __future__ import annotations

import http.client
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from mesh.envoy.ring import HEAD
from tests.support.lines import record_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

PORT = 18_610


class Scene:
    """An agent as a process, clients, and an observer that counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent = 0
        self.told = 0
        self.lost = 0
        self.paths: set[str] = set()
        self._observer: socket.socket | None = None
        self._receiver = threading.Thread(target=self._receive, daemon=True)
        self.observe()
        self.start_agent()
        eventually((folder / "envoy.ready").exists)

    def start_agent(self) -> None:
        words = [sys.executable, "-m", "tests.support.accounted", str(self.folder), str(PORT)]
        self.agent = subprocess.Popen(words)

    def kill_agent(self) -> None:
        self.agent.kill()
        self.agent.wait()

    def observe(self) -> None:
        """An observer comes."""
        path = self.folder / "records.sock"
        path.unlink(missing_ok=True)
        self._observer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._observer.bind(str(path))
        self._observer.settimeout(0.05)
        self._receiver = threading.Thread(target=self._receive, daemon=True)
        self._receiver.start()

    def blind(self) -> None:
        """The observer goes, with all that it has received."""
        observer, self._observer = self._observer, None
        self._receiver.join()
        assert observer is not None
        observer.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._count(observer.recv(2**20))
        observer.close()

    def _receive(self) -> None:
        while (observer := self._observer) is not None:
            with suppress(TimeoutError):
                self._count(observer.recv(2**20))

    def _count(self, datagram: bytes) -> None:
        for line in filter(None, datagram.splitlines()):
            record = record_of(line)
            if record["type"] == "Lost":
                self.lost += record["count"]
            else:
                self.told += 1
                self.paths.add(record["http"]["url"])

    def ask(self, count: int, size: int = 20) -> None:
        """Requests, one after the other; each is answered."""
        made = http.client.HTTPConnection("127.0.0.1", PORT + 1, timeout=10)
        for _ in range(count):
            made.request("GET", f"/{self.sent}-{'x' * size}")
            answer = made.getresponse()
            assert answer.status == 403
            answer.read()
            self.sent += 1
        made.close()

    def asking(self, count: int) -> threading.Thread:
        thread = threading.Thread(target=self.ask, args=(count,))
        thread.start()
        return thread

    def has_told(self, count: int) -> bool:
        return self.told >= count

    def is_balanced(self) -> bool:
        return self.told + self.lost == self.sent

    def close(self) -> None:
        self.agent.kill()
        self.agent.wait()
        with suppress(OSError, ValueError):
            os.kill(int((self.folder / "envoy.pid").read_text()), signal.SIGKILL)
        self._observer = None
        self._receiver.join()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def test_an_agent_that_is_killed_or_stopped_under_load_loses_nothing(scene: Scene) -> None:
    for number in (signal.SIGKILL, signal.SIGSTOP):
        load = scene.asking(1500)
        enough = scene.told + 100
        eventually(partial(scene.has_told, enough))
        scene.agent.send_signal(number)
        load.join()
        if number == signal.SIGKILL:
            scene.agent.wait()
            scene.start_agent()
        else:
            scene.agent.send_signal(signal.SIGCONT)
        eventually(scene.is_balanced)
    assert scene.lost == 0
    assert len(scene.paths) == scene.sent, "none was told twice"


def test_what_comes_while_no_observer_is_there_is_counted_and_told_to_the_next_even_by_another_agent(
    scene: Scene,
) -> None:
    scene.ask(50)
    eventually(lambda: scene.told == 50)
    scene.blind()
    scene.ask(70)
    # The agent has read them once it has noted so.
    progress = scene.folder / "rings" / "progress"
    eventually(lambda: int.from_bytes(progress.read_bytes(), "little") == 70)
    scene.kill_agent()
    scene.start_agent()
    scene.observe()
    eventually(scene.is_balanced)
    assert scene.lost == 70
    scene.ask(5)
    eventually(scene.is_balanced)
    assert (scene.told, scene.lost) == (55, 70)


def test_more_than_a_ring_holds_is_lost_and_counted_and_then_it_goes_on(scene: Scene) -> None:
    scene.ask(1)
    eventually(scene.is_balanced)
    scene.agent.send_signal(signal.SIGSTOP)
    fill(next((scene.folder / "rings").glob("*.ring")), leave=100_000)
    scene.ask(400, size=1500)
    scene.agent.send_signal(signal.SIGCONT)
    eventually(scene.is_balanced)
    assert scene.lost > 200
    before = scene.told
    scene.ask(100)
    eventually(scene.is_balanced)
    assert scene.told == before + 100


def fill(ring: Path, leave: int) -> None:
    """As good as so many requests: empty lines, up to `leave` bytes."""
    size = ring.stat().st_size - HEAD
    with ring.open("r+b") as file, mmap.mmap(file.fileno(), 0) as found:
        found[HEAD:] = b"\n" * size
        (written,) = struct.unpack_from("<Q", found, 64)
        struct.pack_into("<Q", found, 64, written + size - leave)


def test_while_an_envoy_takes_over_from_another_one_both_are_heard(scene: Scene) -> None:
    load = scene.asking(1500)
    eventually(partial(scene.has_told, 100))
    old = (scene.folder / "envoy.pid").read_text()
    scene.kill_agent()
    (scene.folder / "envoy.digest").write_text("of another one")
    scene.start_agent()
    eventually(lambda: (scene.folder / "envoy.pid").read_text() not in ("", old), timeout_s=20)
    load.join()
    scene.ask(50)
    eventually(scene.is_balanced)
    assert scene.lost == 0
    assert len(scene.paths) == scene.sent
    assert len(list((scene.folder / "rings").glob("*.ring"))) == 2
    os.kill(int(old), signal.SIGKILL)
    eventually(lambda: len(list((scene.folder / "rings").glob("*.ring"))) == 1, timeout_s=20)


def test_what_a_dead_envoy_has_told_is_heard(scene: Scene) -> None:
    scene.ask(30)
    eventually(scene.is_balanced)
    pid = int((scene.folder / "envoy.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: (scene.folder / "envoy.pid").read_text() != str(pid))

    def answers() -> bool:
        with suppress(OSError, http.client.HTTPException):
            scene.ask(1)
            return True
        return False

    eventually(answers)
    scene.ask(30)
    eventually(scene.is_balanced)
    assert scene.lost == 0
