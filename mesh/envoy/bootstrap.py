"""How an Envoy starts: who it is, where its files and its admin socket are, how much it may use.

In:        the node's name, a folder.
Out:       Envoy's bootstrap, as plain data.
Elsewhere: files.py writes what is discovered later; process.py runs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from mesh.envoy.files import ResourceFiles

Tree = dict[str, Any]

LISTENERS: Final = "listeners"
CLUSTERS: Final = "clusters"
ADMIN_SOCKET: Final = "admin.sock"
HEAP_BYTES: Final = 512 * 2**20
"""Near it, Envoy takes no more requests; at it, no more connections."""
MAX_CONNECTIONS: Final = 50_000
_MAX_REGEX: Final = 100_000
"""Envoy's own limit of 100 is below what a list of ten paths needs; the length of patterns is limited before."""

_STATS: Final = (
    "server.", "listener_manager.", "cluster_manager.", "extension_config_discovery.", "filesystem.", "overload.",
    "access_log_file.", "http.policy-", "tcp.policy-", "http.rbac.", "policy-", "cluster.egress.", "cluster.ingress.",
)  # fmt: skip
"""Statistics that are kept. Names of services and hosts are in others, and are as many as there are of those."""


def bootstrap(node: str, folder: Path, files: ResourceFiles) -> Tree:
    """The bootstrap of a node's Envoy."""
    return {
        "node": {"id": node, "cluster": "flowscope"},
        "admin": {"address": {"pipe": {"path": str(folder / ADMIN_SOCKET), "mode": 0o600}}},
        "dynamic_resources": {"lds_config": files.source(LISTENERS), "cds_config": files.source(CLUSTERS)},
        "stats_config": {"stats_matcher": {"inclusion_list": {"patterns": [{"prefix": one} for one in _STATS]}}},
        "overload_manager": {
            "refresh_interval": "0.5s",
            "resource_monitors": [
                _monitor("fixed_heap", "FixedHeapConfig", max_heap_size_bytes=HEAP_BYTES),
                _monitor(
                    "global_downstream_max_connections",
                    "DownstreamConnectionsConfig",
                    kind="downstream_connections",
                    max_active_downstream_connections=MAX_CONNECTIONS,
                ),
            ],
            "actions": [
                _action("shrink_heap", 0.9),
                _action("stop_accepting_requests", 0.95),
                _action("stop_accepting_connections", 0.98),
            ],
        },
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {"re2.max_program_size.error_level": _MAX_REGEX},
                }
            ]
        },
    }


def _monitor(name: str, message: str, kind: str = "", **fields: Any) -> Tree:
    kind = kind or name
    package = f"envoy.extensions.resource_monitors.{kind}.v3"
    return {
        "name": f"envoy.resource_monitors.{name}",
        "typed_config": {"@type": f"type.googleapis.com/{package}.{message}", **fields},
    }


def _action(name: str, level: float) -> Tree:
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": level}}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}
