"""Services in the kernel.

In:        what each frontend address should lead to, as the agent has worked it out.
Out:       entries of the service maps; only what differs is written, in an order that leaves every service usable at
           every moment. Backend ids and service indices stay the same over a restart: they are read back.
Elsewhere: service_tables.py says what the tables hold; tail_service.bpf.c and include/services.h choose and translate;
           datapath.py is the door; maglev.py computes tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from bpf import maps
from bpf.census import note_removed
from bpf.handles import Map, MapType
from bpf.maglev import MAGLEV_SIZE, maglev_table
from bpf.service_tables import (
    FRONTENDS,
    MAX_INDEX,
    TABLE_ORDER,
    MaglevSet,
    Table,
    Tables,
    compile_services,
    decompile,
    frontends,
    index_key,
    numbers_in,
)
from bpf.services import MAX_AFFINITY_S, Frontend, ServiceFrontend, ServicesTooLarge, check

MAX_ENTRIES: Final = 65536


class ServiceMaps:
    """The service maps of one node."""

    def __init__(self, tables: Mapping[str, Map]) -> None:
        self._maps = tables
        self._maglev: dict[int, MaglevSet] = {}
        """What stands in each table written by this process."""

    def sync(self, wanted: Iterable[ServiceFrontend]) -> None:
        """Make the services exactly these. Of two with the same frontend, the first one counts.

        Raises: ServicesTooLarge; ValueError for values that no packet can have.
        """
        services: dict[Frontend, ServiceFrontend] = {}
        for service in wanted:
            check(service)
            services.setdefault(service.frontend, service)
        present = self._read()
        target, maglev = compile_services(list(services.values()), numbers_in(present))
        for name, table in target.items():
            if len(table) > MAX_ENTRIES:
                raise ServicesTooLarge(f"{len(table)} entries do not fit into {name}, which holds {MAX_ENTRIES}")
        changes = {name: _difference(present.get(name, {}), target[name]) for name in TABLE_ORDER}
        # What a frontend needs comes before it, and goes after it.
        self._set_maglev(maglev)
        for name in TABLE_ORDER:
            for key, value in changes[name][0].items():
                self._map(name).update(key, value)
        for name in reversed(TABLE_ORDER):
            for key in changes[name][1]:
                self._map(name).delete(key)
        self._drop_maglev(maglev.keys())

    def services(self) -> list[ServiceFrontend]:
        """What the kernel has."""
        return decompile(self._read())

    def forget_clients(self, now_s: int) -> int:
        """Remove affinities that have run out, or whose service is gone; returns how many."""
        timeouts = np.zeros(MAX_INDEX + 1, np.int64)
        for value in frontends(self._read()).values():
            timeouts[int(value["rev_nat_index_be"])] = int(value["target"]) & MAX_AFFINITY_S
        removed = 0
        for name in (maps.LB4_AFFINITY, maps.LB6_AFFINITY):
            table = self._maps[name]
            keys, values = table.dump()
            indices = keys.view(maps.AFFINITY_KEY)[:, 0]["rev_nat_index_be"].astype(np.int64)
            last = values.view(maps.AFFINITY_VALUE)[:, 0]["last_used_s"].astype(np.int64)
            gone = table.delete_many(keys[last + timeouts[indices] < now_s])
            note_removed(self._maps[maps.INSERTS], name, gone)
            removed += gone
        return removed

    def _map(self, name: str) -> Map:
        return self._maps[name.removesuffix(FRONTENDS)]

    def _read(self) -> Tables:
        tables: Tables = {}
        for name in TABLE_ORDER:
            if not name.endswith(FRONTENDS):
                tables[name] = dict(self._maps[name].items())
        for name in (maps.LB4_SERVICES, maps.LB6_SERVICES):
            slot = slice(6, 8) if name == maps.LB4_SERVICES else slice(18, 20)
            everything = tables[name]
            tables[name + FRONTENDS] = {key: value for key, value in everything.items() if not any(key[slot])}
            tables[name] = {key: value for key, value in everything.items() if any(key[slot])}
        return tables

    def _set_maglev(self, wanted: Mapping[int, MaglevSet]) -> None:
        for index, backends in wanted.items():
            if self._maglev.get(index) == backends:
                continue
            inner = Map.create(MapType.ARRAY, "maglev", 4, MAGLEV_SIZE * 4, 1)
            try:
                inner.update(bytes(4), maglev_table(dict(backends)).astype("<u4").tobytes())
                self._maps[maps.MAGLEV].update(index_key(index), inner.fd.to_bytes(4, "little"))
            finally:
                inner.close()
            self._maglev[index] = backends

    def _drop_maglev(self, wanted: Iterable[int]) -> None:
        keep = {index_key(index) for index in wanted}
        table = self._maps[maps.MAGLEV]
        for key in table.all_keys():
            if key not in keep:
                table.delete(key)
                self._maglev.pop(int.from_bytes(key, "big"), None)


def _difference(present: Table, wanted: Table) -> tuple[Table, set[bytes]]:
    """What to write, and what to delete."""
    return {key: value for key, value in wanted.items() if present.get(key) != value}, present.keys() - wanted.keys()
