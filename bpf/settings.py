"""Settings of a node's programs, which they read with every packet.

In:        values by the name of the field (struct node_config of include/layouts.h).
Out:       the one entry of the settings map; what is not named keeps its value.
Elsewhere: datapath.py says what the settings mean.
"""

from __future__ import annotations

from typing import Any, Final

from bpf import maps
from bpf.encoding import record
from bpf.handles import Map

ZERO_KEY: Final = bytes(4)
FLAGS: Final = {
    "host_policy": maps.NODE_HOST_POLICY,
    "no_reject": maps.NODE_NO_REJECT,
    "tell_denied": maps.NODE_TELL_DENIED,
}


class NodeSettings:
    """The settings of one node."""

    def __init__(self, table: Map) -> None:
        self._table = table

    def read(self) -> Any:
        """The settings as numpy shows them; all zero at first."""
        return record(self._table.lookup(ZERO_KEY) or bytes(maps.NODE_CONFIG.itemsize), maps.NODE_CONFIG)

    def change(self, **changes: Any) -> None:
        """Set fields; None keeps the present value."""
        config = self.read().copy()
        for name, value in changes.items():
            if value is not None:
                config[name] = value
        self._table.update(ZERO_KEY, config.tobytes())

    def switch(self, **flags: bool | None) -> None:
        """Set flags, by their names in `FLAGS`; None keeps the present one."""
        present = int(self.read()["flags"])
        for name, on in flags.items():
            if on is not None:
                present = present | FLAGS[name] if on else present & ~FLAGS[name]
        self.change(flags=present)
