"""Services at the sockets of the node's own processes, where this is wanted and possible.

In:        settings; the node's datapath.
Out:       programs on a cgroup, and its id, by which the observer knows the node.
Elsewhere: bpf/sockets.py attaches; without it what processes send is translated on the way (from_host).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import structlog

from bpf.datapath import Datapath
from bpf.libbpf import BpfError
from bpf.sockets import cgroup_mount
from mesh.config import AgentConfig
from mesh.resources.cluster import Node

log: Final = structlog.get_logger(component="services")


def serve_sockets(datapath: Datapath, config: AgentConfig) -> int:
    """Attach, or take off what an earlier agent attached; returns the cgroup's id, 0 for none."""
    if not config.socket_lb:
        datapath.detach_sockets()
        return 0
    root = Path(config.cgroup_root) if config.cgroup_root else cgroup_mount()
    try:
        if root is None:
            raise BpfError("no cgroups of version 2 are mounted")
        number = datapath.attach_sockets(root)
    except BpfError as error:
        log.warning("services are translated in packets only, not at sockets", reason=str(error))
        return 0
    log.info("services are translated at sockets of the node", cgroup=str(root))
    return number


def cgroups(number: int, node: Node) -> list[dict[str, Any]]:
    """Who the observer finds behind the cgroup: the node."""
    return [{"cgroup_id": number, "ips": list(node.ips)}] if number else []
