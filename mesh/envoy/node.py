"""A node's Envoy as its agent sees it.

In:        what policies allow, and where identities are; resources of CiliumEnvoyConfigs.
Out:       an Envoy that does so, once `update` returns; what it refused; the ports where it listens.
Elsewhere: process.py runs it, files.py and listeners.py make what it reads, carrier.py carries its records.

Nothing is sent to what is not there yet: clusters come before the routes that lead to them, and go after them
(retiring.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any, Final

import structlog

from mesh.envoy import files, gate, listeners
from mesh.envoy.admin import AdminError
from mesh.envoy.bootstrap import CLUSTERS, LISTENERS, bootstrap
from mesh.envoy.carrier import Carrier
from mesh.envoy.headers import changing_filter
from mesh.envoy.listeners import DIRECTIONS, Direction
from mesh.envoy.matching import Changes, NodeView, relevant, tree
from mesh.envoy.process import EnvoyProcess
from mesh.envoy.retiring import Extra, Retiring
from mesh.records import Records
from service.failure import Failure

Tree = dict[str, Any]

PARSERS: Final = ("http", "tls")
"""What policies have judged here."""
SETTLE_S: Final = 3.0
"""Envoy takes its files within milliseconds, large ones within a second."""
FIRST_POLL_S: Final = 0.005
LONGEST_POLL_S: Final = 0.1

log = structlog.get_logger(component="envoy")


_OWN_FILES: Final = {"routes": files.ROUTE, "endpoints": files.ENDPOINTS, "secrets": files.SECRET}
"""What Envoy reads from a file for each resource."""


class EnvoyNode:
    """Belongs to one loop."""

    def __init__(
        self,
        folder: Path,
        node: str,
        port: Callable[[str, bool], int],
        records: Records,
        *,
        concurrency: int = 2,
        addresses: Sequence[str] = listeners.LOOPBACKS,
    ) -> None:
        """`port` says where the listener for a parser and a direction (egress?) is."""
        self.folder = folder
        self.process = EnvoyProcess(folder, concurrency)
        self.problems: tuple[str, ...] = ()
        """What Envoy does not accept, in its own words. It goes on with what it had."""
        self._extra = Extra()
        self._retiring = Retiring()
        self._heard: list[str] = []
        """Complaints that `update` has not told yet."""
        self._views: dict[Direction, NodeView] = {}
        """What Envoy's files say."""
        self._node = node
        self._port = port
        self._files = files.ResourceFiles(folder / "resources")
        self._carrier = Carrier(folder / "rings", records)
        self._addresses = addresses
        self._filters = {
            name: self._files.source(name)
            for direction in DIRECTIONS
            for name in (
                *(listeners.filter_name(parser, direction) for parser in PARSERS),
                listeners.changes_name(direction),
            )
        }
        self._gate: tuple[NodeView, frozenset[gate.Backend]] | None = None
        """What the filters of load balancers are made from."""
        self._known: frozenset[gate.Backend] = frozenset()
        """Backends of clusters."""
        self._in_use: frozenset[str] = frozenset()
        """Those that a listener has; Envoy reads no other."""

    async def start(self) -> None:
        """Make folder and files, start Envoy or take over the one that runs. Raises: Failure."""
        self._files.prepare()
        self._carrier.open()
        if not self._files.has_all((LISTENERS, CLUSTERS, *self._filters, *gate.NAMES)):
            # Before anything is known nothing is allowed; an agent that comes back leaves what is there.
            self._write_policies(NodeView())
            self._write_gate(NodeView(), Extra())
            self._write_clusters(Extra())
            self._write_resources(Extra())
        await self.process.start(bootstrap(self._node, self.folder, self._files))

    def stop(self) -> None:
        """Watch no more. Envoy stays and does as it did."""
        self.process.let_go()
        self._carrier.close()

    def source(self, kind: str, name: str) -> Tree:
        """Where Envoy finds a resource of users; `kind` is a field of Extra."""
        return self._files.source(files.safe_name(kind, name))

    def filter_source(self, name: str) -> Tree:
        """Where Envoy finds the contents of a filter."""
        return self._files.source(name)

    @property
    def records_folder(self) -> str:
        """Where Envoy keeps records of requests until they are read."""
        return str(self._carrier.folder)

    async def update(self, view: NodeView, extra: Extra | None = None) -> bool:
        """Have Envoy do this; returns when it does, or has refused (see `problems`). False: not all is taken.

        Without `extra`, resources of users stay as they are.
        """
        self._extra = self._extra if extra is None else extra
        extra = self._retiring.with_leaving(self._extra)
        before = dict(self._files.versions)
        try:
            had = self._in_use
            self._write_gate(view, extra)
            self._write_own(extra, "endpoints", "secrets")
            self._write_clusters(extra)
            if before.get(CLUSTERS) != self._files.versions[CLUSTERS]:
                await self._clusters_ready({CLUSTERS, *(had & self._in_use)})
            self._write_own(extra, "routes")
            self._write_policies(view)
            self._write_resources(extra)
        except Failure as failure:
            log.warning("Envoy keeps what it has", reason=str(failure))
            self.problems = (str(failure),)
            return False
        same = before == self._files.versions
        # What was refused and is the same is not waited for again.
        done = (same and not self.problems) or await self._settled(0.0 if same else SETTLE_S)
        if done:
            self._retiring.taken = self._extra
        return done

    def _write_policies(self, view: NodeView) -> None:
        for direction in DIRECTIONS:
            mine = relevant(view, direction.egress)
            if mine == self._views.get(direction):
                continue
            changes = Changes()
            for parser in PARSERS:
                matcher = tree(mine, parser, direction.egress, changes)
                name = listeners.filter_name(parser, direction)
                self._extension(name, listeners.judging_filter(parser, direction, matcher))
            self._extension(listeners.changes_name(direction), changing_filter(changes))
            self._views[direction] = mine

    def _write_gate(self, view: NodeView, extra: Extra) -> None:
        """What load balancers let in and out; made from nothing else than what is compared here."""
        everything = [*extra.endpoints.values(), *extra.clusters.values()]
        known = frozenset(gate.known_backends(everything))
        # One that has just gone may have been chosen already.
        told = NodeView({}, view.prefixes, view.ingress, view.pods), known | self._known
        self._known = known
        if told != self._gate:
            for name, config in gate.filters(*told).items():
                self._extension(name, config)
            self._gate = told
        self._in_use = frozenset(_names(list(extra.listeners.values())) & set(gate.NAMES))

    def _extension(self, name: str, config: Tree) -> None:
        self._files.write(name, files.EXTENSION, [{"name": name, "typed_config": config}])

    def _write_own(self, extra: Extra, *kinds: str) -> None:
        for kind in kinds:
            for name, resource in getattr(extra, kind).items():
                self._files.write(files.safe_name(kind, name), _OWN_FILES[kind], [resource])

    def _write_clusters(self, extra: Extra) -> None:
        clusters = [*map(listeners.cluster, DIRECTIONS), *extra.clusters.values()]
        self._files.write(CLUSTERS, files.CLUSTER, clusters)

    def _write_resources(self, extra: Extra) -> None:
        own = [self._listener(parser, direction) for direction in DIRECTIONS for parser in PARSERS]
        self._files.write(LISTENERS, files.LISTENER, [*own, *extra.listeners.values()])
        kept = [files.safe_name(kind, name) for kind in _OWN_FILES for name in getattr(extra, kind)]
        self._files.keep([LISTENERS, CLUSTERS, *self._filters, *gate.NAMES, *kept])

    def _listener(self, parser: str, direction: Direction) -> Tree:
        port = self._port(parser, direction.egress)
        if parser == "tls":
            return listeners.tls_listener(direction, port, self._filters, self._addresses)
        return listeners.http_listener(direction, port, self._filters, self.records_folder, self._addresses)

    async def is_listening(self) -> bool:
        """Whether everything of policies that could be sent here is taken."""
        try:
            found = await self.process.admin.listening()
        except AdminError:
            return False
        return all(listeners.filter_name(parser, direction) in found for direction in DIRECTIONS for parser in PARSERS)

    @property
    def is_due(self) -> bool:
        """Whether `update` would take away what nothing needs any more."""
        return self._retiring.is_due

    async def _clusters_ready(self, names: Set[str]) -> None:
        """Until these files are taken and clusters can be used, or Envoy has said what it refuses."""
        deadline = time.monotonic() + SETTLE_S
        pause_s = FIRST_POLL_S
        while not self._heard and time.monotonic() < deadline:
            await asyncio.sleep(pause_s)
            try:
                if not names & await self._waiting() and not await self.process.admin.warming():
                    return
            except AdminError:
                return
            self._heard += self.process.complaints()
            pause_s = min(pause_s * 2, LONGEST_POLL_S)

    async def look_again(self) -> None:
        """Whether it has taken meanwhile what it had not."""
        await self._settled(0.0)

    async def _settled(self, within_s: float) -> bool:
        """Wait until Envoy has taken the files, or has said what it does not take."""
        deadline = time.monotonic() + within_s
        pause_s = FIRST_POLL_S
        complaints, self._heard = self._heard, []
        while True:
            await asyncio.sleep(pause_s)
            waiting = await self._waiting()
            complaints += self.process.complaints()
            if not waiting or complaints or time.monotonic() > deadline:
                break
            pause_s = min(pause_s * 2, LONGEST_POLL_S)
        if waiting and not complaints:
            log.warning("Envoy has not taken its resources", waiting=sorted(waiting))
            # It says what it refuses once, and stays with it.
            complaints = list(self.problems) or [f"it has not taken {', '.join(sorted(waiting))}"]
        for complaint in set(complaints) - set(self.problems):
            log.warning("Envoy refuses resources", reason=complaint)
        self.problems = tuple(dict.fromkeys(complaints)) if waiting else ()
        return not waiting

    async def _waiting(self) -> set[str]:
        """Files that Envoy has not taken."""
        try:
            taken = await self.process.admin.taken()
        except AdminError:
            return {"admin socket"}
        found = {name.rpartition(".")[2]: version for name, version in taken.items()}
        found |= {LISTENERS: taken.get("listener_manager.lds", ""), CLUSTERS: taken.get("cluster_manager.cds", "")}
        watched = (LISTENERS, CLUSTERS, *self._filters, *self._in_use)
        return {name for name in watched if found.get(name) != self._files.versions.get(name)}

    def status(self) -> dict[str, Any]:
        """For agent.json."""
        process = self.process
        facts = {"pid": process.pid, "restarts": process.restarts, "problems": list(self.problems)}
        if not process.pid:
            return {"state": "failure", "message": "not running; what it has to judge is refused", **facts}
        if self.problems:
            return {"state": "warning", "message": f"refuses resources: {self.problems[0]}", **facts}
        return {"state": "ok", "message": "running", **facts}


def _names(piece: Any) -> set[str]:
    """Names of filters whose contents come by themselves."""
    if isinstance(piece, list):
        return {name for one in piece for name in _names(one)}
    if not isinstance(piece, dict):
        return set()
    own = {str(piece["name"])} if "config_discovery" in piece else set()
    return own.union(*map(_names, piece.values()))
