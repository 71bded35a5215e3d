"""Resources of users that go: not before nothing needs them any more.

In:        what Envoy is to have, each time that this changes.
Out:       the same, together with what has gone only just now.
Elsewhere: node.py hands it to Envoy; mesh/envoyconfig/node.py has ended the redirects by then.

A listener that is taken away closes its socket, and with it the connections that wait there to be accepted: so it stays
for a while after the kernel has ceased to send anybody there. Envoy then lets the connections that it has accepted come
to their end, and until then requests on them need routes, clusters and endpoints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.envoy.process import DRAIN_S

Tree = dict[str, Any]

ACCEPT_S: Final = 2.0
"""A handshake over a slow network, and the worker's next turn."""
KINDS: Final = ("listeners", "clusters", "routes", "endpoints", "secrets")


@dataclass(frozen=True, slots=True)
class Extra:
    """Resources of users, as plain data; by full name."""

    listeners: Mapping[str, Tree] = field(default_factory=dict)
    clusters: Mapping[str, Tree] = field(default_factory=dict)
    routes: Mapping[str, Tree] = field(default_factory=dict)
    endpoints: Mapping[str, Tree] = field(default_factory=dict)
    secrets: Mapping[str, Tree] = field(default_factory=dict)


class Retiring:
    """Of one Envoy."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.taken = Extra()
        """What was wanted when Envoy last took all of it: what it has refused need not stay."""
        self._leaving: dict[tuple[str, str], tuple[float, Tree]] = {}
        """By kind and name: until when it stays, and what it is."""

    def with_leaving(self, wanted: Extra) -> Extra:
        """What Envoy is to have now."""
        now = self._clock()
        for kind in KINDS:
            ends = now + (ACCEPT_S if kind == "listeners" else ACCEPT_S + DRAIN_S)
            here = getattr(wanted, kind)
            for name, one in getattr(self.taken, kind).items():
                if name not in here:
                    self._leaving.setdefault((kind, name), (ends, one))
        self._leaving = {
            (kind, name): (ends, one)
            for (kind, name), (ends, one) in self._leaving.items()
            if ends > now and name not in getattr(wanted, kind)
        }
        staying: dict[str, dict[str, Tree]] = {kind: dict(getattr(wanted, kind)) for kind in KINDS}
        for (kind, name), (_, one) in self._leaving.items():
            staying[kind][name] = one
        return Extra(**staying)

    @property
    def is_due(self) -> bool:
        """Whether something has stayed long enough."""
        now = self._clock()
        return any(ends <= now for ends, _ in self._leaving.values())
