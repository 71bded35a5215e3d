"""The programs of a lab: their command lines and where they run.

In:        LabOptions, the lab's folder, names of nodes.
Out:       one Program for the outside world, the relay and the UI; an agent and an observer per node.
Elsewhere: supervisor.py says when each starts; process.py keeps it running.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from lab.cgroups import find_cgroup
from lab.linux import Place
from lab.names import node_netns
from lab.options import SOURCE_ROOT, LabOptions
from lab.process import Program, flowscope
from lab.rundir import MARK, RunDir


class Programs:
    """Makes them from the lab's options."""

    def __init__(self, options: LabOptions, run_dir: RunDir, outside: str) -> None:
        """outside  the network namespace that stands for the internet."""
        self._options = options
        self._run_dir = run_dir
        self._outside = outside

    def agent(self, node: str) -> Program:
        folder = self._run_dir.node(node)
        cgroup = find_cgroup(node_netns(node))
        return self._service(
            f"{node}_agent",
            "agent",
            node,
            {
                "node": node,
                "store": self._run_dir.store,
                "state-file": folder / "state.json",
                "bpffs": self._run_dir.bpffs,
                "aggregation": self._options.aggregation,
                "records-socket": folder / "records.sock",
                "socket-lb": str(cgroup is not None).lower(),
                "cgroup-root": cgroup or "",
            },
        )

    def observer(self, node: str) -> Program:
        record = Path(self._options.record) / f"{node}.fsr" if self._options.record else ""
        return self._service(
            f"{node}_observer",
            "observer",
            node,
            {
                "node-name": node,
                "listen": self.socket(node),
                "state-file": self._run_dir.node(node) / "state.json",
                "pin-dir": self._run_dir.bpffs / "flowscope" / node,
                "records-socket": self._run_dir.node(node) / "records.sock",
                "record": record,
            },
        )

    def world(self) -> Program:
        return Program(
            name="world",
            argv=(sys.executable, "-S", "-m", "lab.servers.world"),
            place=Place(netns=self._outside, hostname="outside"),
            env=self._env(),
        )

    def relay(self, nodes: Iterable[str]) -> Program:
        return self._service(
            "relay",
            "relay",
            None,
            {
                "listen": self._options.relay_listen,
                "health-listen": "",
                "peers": ",".join(f"{node}={self.socket(node)}" for node in nodes),
                "disable-client-tls": "true",
                "disable-server-tls": "true",
            },
        )

    def ui(self) -> Program:
        return self._service(
            "ui", "ui", None, {"listen": self._options.ui_listen, "server": self._options.relay_listen}
        )

    def socket(self, node: str) -> str:
        """Where the node's observer listens."""
        return f"unix://{self._run_dir.node(node) / 'observer.sock'}"

    def _service(self, name: str, command: str, node: str | None, settings: dict[str, object]) -> Program:
        place = Place(netns=node_netns(node), hostname=node) if node else Place()
        flags = (f"--{key}={value}" for key, value in settings.items())
        return Program(name=name, argv=flowscope(command, *flags), place=place, env=self._env())

    def _env(self) -> dict[str, str]:
        return {**os.environ, MARK: str(self._run_dir.path), "PYTHONPATH": str(SOURCE_ROOT)}
