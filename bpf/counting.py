"""What the programs of a node have counted.

In:        maps of counters, one value per CPU.
Out:       sums over all CPUs.
Elsewhere: include/events.h counts; census.py says how full maps are.
"""

from __future__ import annotations

import numpy as np

from bpf import maps
from bpf.facts import EventCounters, PacketCounter
from bpf.handles import Map


def event_counters(table: Map) -> EventCounters:
    """Events offered to the perf rings, over all CPUs."""
    raw = table.lookup(bytes(4)) or b""
    per_cpu = np.frombuffer(raw, maps.EVENT_STATS_VALUE)
    stored, ring_full, no_reader, failed = (int(per_cpu[name].sum()) for name in maps.EVENT_STATS_VALUE.fields or ())
    return EventCounters(emitted=stored + ring_full, ring_full=ring_full, no_reader=no_reader, failed=failed)


def packet_counters(table: Map) -> list[PacketCounter]:
    """Packets forwarded, arrived and dropped, by reason and place."""
    keys, values = table.dump()
    totals = values.view(maps.METRICS_VALUE)
    return [
        PacketCounter(
            reason=int(key["reason"]),
            direction=int(key["direction"]),
            line=int(key["line"]),
            file=maps.DROP_FILES.get(int(key["file"]), ""),
            packets=int(per_cpu["count"].sum()),
            bytes=int(per_cpu["bytes"].sum()),
        )
        for key, per_cpu in zip(keys.view(maps.METRICS_KEY)[:, 0], totals, strict=True)
    ]
