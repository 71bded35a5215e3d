"""How well the network is being watched: nodes, gaps, what is held, and what this process costs.

In:        the hub.
Out:       JSON-ready data for the page's view of health.
Elsewhere: feed.py learns the states; observers count what they lose (observer/).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ui.hub import Hub, NodeFacts

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def health(hub: Hub) -> dict[str, Any]:
    """Everything at once; it is small."""
    ring = hub.ring
    oldest = int(ring.slice(ring.tail, ring.tail + 1)["ts_ns"][0]) if len(ring) else 0
    nodes = [_node(name, facts) for name, facts in sorted(hub.nodes.items())]
    seen = sum(facts.flows for facts in hub.nodes.values())
    times = os.times()
    alive = max(time.time() - hub.started_at, 1)
    return {
        "connected": hub.connected,
        "relay": "connected" if hub.connected else hub.relay_text,
        "nodes": nodes,
        "lost": hub.lost_events,
        "coverage": coverage(seen, hub.lost_events),
        "held": {"flows": len(ring), "capacity": ring.capacity, "from_ms": oldest // 1_000_000},
        "process": {
            "cpu_percent": round(100 * (times.user + times.system) / alive, 1),
            "memory_mib": round(resident_bytes() / 2**20, 1),
            "up_s": round(alive),
        },
    }


def _node(name: str, facts: NodeFacts) -> dict[str, Any]:
    return {
        "name": name,
        "state": facts.state,
        "flows": facts.flows,
        "lost": facts.lost,
        "coverage": coverage(facts.flows, facts.lost),
        "newest_ms": facts.newest_ns // 1_000_000,
    }


def coverage(seen: int, lost: int) -> float:
    """Percent of what happened that is held or was held."""
    return round(100 * seen / (seen + lost), 2) if seen + lost else 100.0


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
