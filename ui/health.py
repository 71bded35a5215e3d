"""How well the network is being watched: nodes, gaps, what is held, and what all that costs.

In:        the hub.
Out:       JSON-ready data for the page's view of health.
Elsewhere: feed.py learns the states; observers count what they lose (observer/); cost.py knows what it costs.
"""

from __future__ import annotations

import time
from typing import Any

from ui.hub import Hub, NodeFacts


def health(hub: Hub) -> dict[str, Any]:
    """Everything at once; it is small."""
    ring = hub.ring
    oldest = int(ring.slice(ring.tail, ring.tail + 1)["ts_ns"][0]) if len(ring) else 0
    nodes = [_node(name, facts) for name, facts in sorted(hub.nodes.items())]
    seen = sum(facts.flows for facts in hub.nodes.values())
    return {
        "connected": hub.connected,
        "relay": "connected" if hub.connected else hub.relay_text,
        "nodes": nodes,
        "lost": hub.lost_events,
        "coverage": coverage(seen, hub.lost_events),
        "held": {"flows": len(ring), "capacity": ring.capacity, "from_ms": oldest // 1_000_000},
        "up_s": round(time.time() - hub.started_at),
        "costs": hub.costs.look(),
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
