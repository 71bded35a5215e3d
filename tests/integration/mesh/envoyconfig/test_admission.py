"""A CiliumEnvoyConfig that Envoy refuses and that came into the store past every check: the running Envoy goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from mesh.cluster import Cluster
from mesh.envoy.matching import NodeView
from mesh.envoy.node import EnvoyNode
from mesh.envoy.process import forget_memory
from mesh.envoyconfig.node import NodeEnvoyConfigs
from mesh.records import Records
from mesh.resources.manifests import parse_manifests
from tests.support.cluster import node
from tests.support.loopback_envoy import free_port

pytestmark = pytest.mark.kernel  # transparent sockets

MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
CONFIG = """
---
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: NAME}
spec:
  resources:
    - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
      name: l
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": MANAGER
                stat_prefix: l
                rds: {route_config_name: r}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
    - "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
      name: r
      virtual_hosts:
        - name: r
          domains: ["*"]
          routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: SAID}}}]
    - "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
      name: c
      connect_timeout: TIMEOUT
      type: STATIC
"""


def config(name: str, said: str, timeout: str = "5s") -> str:
    return CONFIG.replace("MANAGER", MANAGER).replace("NAME", name).replace("SAID", said).replace("TIMEOUT", timeout)


class Node:
    """What an agent does with its Envoy."""

    def __init__(self, folder: Path) -> None:
        self._ports: dict[tuple[str, bool], int] = {}
        self._records = Records(str(folder / "records.sock"))
        self.envoy = EnvoyNode(folder / "envoy", "n", self._port, self._records, concurrency=1, addresses=["127.0.0.1"])
        self.begin()

    def begin(self) -> None:
        """As an agent that has only just started."""
        self.configs = NodeEnvoyConfigs(node(0), self.envoy, self._port)

    def _port(self, name: str, egress: bool) -> int:
        return self._ports.setdefault((name, egress), free_port())

    async def apply(self, *texts: str) -> bool:
        cluster = Cluster(parse_manifests("".join(texts)))
        return await self.envoy.update(NodeView(), await self.configs.find(cluster))

    async def said(self, name: str) -> str:
        """By the listener of a resource."""
        url = f"http://127.0.0.1:{self._ports[f'default/{name}/l', False]}/"
        return await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())

    def close(self) -> None:
        pid = self.envoy.process.pid
        self.envoy.stop()
        self._records.close()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        forget_memory(self.envoy.folder)


async def course(one: Node) -> None:
    await one.envoy.start()
    assert await one.apply(config("a", "first"))
    assert await one.said("a") == "first"

    for _ in range(2):
        # The one beside it comes through, and the old one stays; also for an agent that starts now.
        assert await one.apply(config("a", "second", timeout="-5s"), config("b", "beside"))
        assert (await one.said("a"), await one.said("b")) == ("first", "beside")
        told = one.configs.describe()
        assert told["state"] == "warning"
        assert "CiliumEnvoyConfig default/a: spec.resources[2]: Envoy refuses it: Invalid duration" in told["message"]
        assert told["problems"][0].endswith("; what it said before stays")
        one.begin()

    assert await one.apply(config("a", "third"), config("b", "beside"))
    assert await one.said("a") == "third"
    assert one.configs.describe()["state"] == "ok"


def test_the_running_configuration_stays_and_the_report_names_resource_and_complaint(tmp_path: Path) -> None:
    async def run() -> None:
        one = Node(tmp_path)
        try:
            await course(one)
        finally:
            one.close()

    asyncio.run(run())
