"""The node's endpoints in the kernel: pods whose devices carry our programs.

In:        the endpoints that should be there, each round.
Out:       programs attached and detached through bpf/datapath.py; which endpoints the kernel has refused.
Elsewhere: endpoints.py makes endpoints of pods; main.py says when, and tries again while some are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from bpf.datapath import Datapath, Endpoint
from bpf.libbpf import BpfError

log = structlog.get_logger(component="agent")


class Attachments:
    """What is attached, and what was refused."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._attached: dict[int, Endpoint] = {}
        self.refused: set[int] = set()
        """Endpoints that the kernel has not taken; tried again until it does, or until they are not wanted."""

    def update(self, wanted: Mapping[int, Endpoint]) -> None:
        """Detach what is not wanted, attach what is new or different."""
        for number in self._datapath.endpoints().keys() - wanted.keys():
            self._datapath.detach_endpoint(number)
            self._attached.pop(number, None)
            log.info("endpoint removed", endpoint=number)
        self.refused.clear()
        for number, endpoint in wanted.items():
            if self._attached.get(number) == endpoint:
                continue
            try:
                self._datapath.attach_endpoint(endpoint)
            except BpfError as error:
                self.refused.add(number)
                log.warning("endpoint refused", endpoint=number, device=endpoint.ifname, error=str(error))
                continue
            self._attached[number] = endpoint
            log.info("endpoint attached", endpoint=number, device=endpoint.ifname, identity=endpoint.identity)

    def describe(self) -> dict[str, Any]:
        """For the agent's report."""
        refused = sorted(self.refused)
        if refused:
            return {"state": "warning", "message": f"not attached: {', '.join(map(str, refused))}", "refused": refused}
        return {"state": "ok", "message": f"{len(self._attached)} attached", "refused": []}
