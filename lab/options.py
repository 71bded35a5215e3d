"""What a lab is made of, as `lab up` was asked.

In:        flags of the command line.
Out:       LabOptions, handed to the supervisor as JSON.
Elsewhere: commands.py fills it in, supervisor.py obeys it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lab.rundir import DEFAULT

MANIFESTS: Final = Path(__file__).parent / "manifests"
KIND_CONFIG: Final = MANIFESTS / "kind-config.yaml"
SYSTEM: Final = (MANIFESTS / "coredns.yaml",)
"""What every cluster has, as one made by kind has it."""
DEMO: Final = (MANIFESTS / "cilium-test.yaml",)
SOURCE_ROOT: Final = Path(__file__).parent.parent
"""What PYTHONPATH must hold for our programs, also those that start without `site`."""
STOP_S: Final = 5.0
"""Seconds that a service gets to drain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """What `lab up` asks for; also the configuration of the supervisor's run loop."""

    run_dir: str = str(DEFAULT)
    config: str = str(KIND_CONFIG)
    manifests: tuple[str, ...] = tuple(map(str, DEMO))
    relay_listen: str = "localhost:4245"
    """Empty: no relay and no UI."""
    ui_listen: str = "localhost:12000"
    """Empty: no UI."""
    aggregation: str = "medium"
    record: str = ""
    """Folder for a recording of each node; empty: none."""
    drain_s: float = 4 * STOP_S
    log_level: str = "info"
    log_json: bool = False

    def to_json(self) -> str:
        """For the supervisor's command line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> LabOptions:
        """The inverse."""
        values = json.loads(text)
        return LabOptions(**{**values, "manifests": tuple(values["manifests"])})
