"""The standard health service: is the server, or one of its services, ready?

In:        `set`, by whoever knows.
Out:       Check and Watch.
Elsewhere: the relay decides from its peers (relay/health.py); a node's observer serves as soon as it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from rpc.call import Call, Service
from rpc.standard import message_class, service
from rpc.status import RpcError, Status

OBSERVER: Final = "hubble.server.Observer"
"""The name that Hubble's clients ask for."""

SERVICE_NAMES: Final = ("", OBSERVER)
"""What every server of ours answers for; "" is the server as a whole."""

HealthCheckRequest: Final = message_class("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse: Final = message_class("grpc.health.v1.HealthCheckResponse")

SERVING: Final = 1
NOT_SERVING: Final = 2
SERVICE_UNKNOWN: Final = 3


class Health(Service):
    """State per name; every name starts as `serving`."""

    descriptor = service("grpc.health.v1.Health")

    def __init__(self, names: Sequence[str] = SERVICE_NAMES, serving: bool = True) -> None:
        self._states = dict.fromkeys(names, SERVING if serving else NOT_SERVING)
        self._changed = asyncio.Event()

    def set(self, name: str, serving: bool) -> None:
        """Change the state of one name; watchers hear of it."""
        state = SERVING if serving else NOT_SERVING
        if self._states.get(name) != state:
            self._states[name] = state
            self._changed.set()
            self._changed = asyncio.Event()

    def set_all(self, serving: bool) -> None:
        """Change the state of all names."""
        for name in list(self._states):
            self.set(name, serving)

    def shutdown(self) -> None:
        """The server drains: nothing is served any more."""
        self.set_all(False)

    async def Check(self, request: Any, call: Call) -> Any:  # noqa: N802 (named by the protocol)
        """The state now. Raises: RpcError NOT_FOUND for an unknown name."""
        state = self._states.get(request.service)
        if state is None:
            raise RpcError(Status.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=state)

    async def Watch(self, request: Any, call: Call) -> None:  # noqa: N802
        """The state now, and again whenever it changes; an unknown name may become known."""
        told = None
        stopping = asyncio.ensure_future(call.stop.wait())
        try:
            while True:
                changed = asyncio.ensure_future(self._changed.wait())
                state = self._states.get(request.service, SERVICE_UNKNOWN)
                if state != told:
                    await call.send_message(HealthCheckResponse(status=state))
                    told = state
                if call.stopping:
                    changed.cancel()
                    raise RpcError(Status.UNAVAILABLE, "server is stopping")
                try:
                    await asyncio.wait({changed, stopping}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
        finally:
            stopping.cancel()
