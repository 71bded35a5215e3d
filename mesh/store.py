"""The resource store: what the cluster should be, shared by processes of one machine.

In:        resources from `apply` and from controllers.
Out:       lists, and a watch that wakes every process when something changed.
Elsewhere: resources/ says what a resource is; etcd and the Kubernetes API will be other implementations of `Store`.

SQLite in one folder: `resources.db` and `bell`. SQLite cannot wake other processes, so whoever commits touches the
bell, and watchers wait for that with inotify: a change arrives within milliseconds and an idle watcher costs nothing.

Every `flowscope mesh` command opens the store, so this module loads little: what only watchers need comes with `watch`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import sqlalchemy as sa

from mesh.resources.base import Key, Resource, changed, timestamp
from mesh.resources.deployments import Deployment
from mesh.resources.manifests import parse_manifest
from mesh.resources.mistakes import InvalidResource
from mesh.resources.pods import Pod, told_to_go
from mesh.resources.services import Service
from service.failure import Failure

RECHECK_S: Final = 2.0
"""A watcher looks again after this time even without a bell: the writer may have died between commit and bell."""
BUSY_S: Final = 10.0
"""How long to wait for another process that writes."""

_SCHEMA: Final = sa.MetaData()
_RESOURCES: Final = sa.Table(
    "resources",
    _SCHEMA,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    # Global and growing; a deleted resource stays as a row without manifest, so that watchers learn of it.
    sa.Column("revision", sa.Integer, nullable=False, unique=True),
    sa.Column("manifest", sa.Text),
)


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after a revision."""

    revision: int
    """Of the newest change; ask for changes since here next time."""
    written: tuple[Resource, ...] = ()
    deleted: tuple[Key, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.written or self.deleted)


class Store(Protocol):
    """Where resources live. Writes of one call become visible together."""

    def find(self, kind: str | None = None, namespace: str | None = None) -> list[Resource]: ...
    def get(self, key: Key) -> Resource | None: ...
    def apply(self, resources: Sequence[Resource]) -> list[str]: ...
    def update(self, change: Callable[[list[Resource]], Update]) -> Update: ...
    def delete(self, keys: Iterable[Key], at_once: bool = False) -> int: ...
    def changes(self, since: int) -> Changes: ...
    def watch(self, since: int = 0) -> AsyncIterator[Changes]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Update:
    """Resources to write and to delete."""

    put: tuple[Resource, ...] = ()
    delete: tuple[Key, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.put or self.delete)


class SqliteStore:
    """The embedded store. One per process; not thread-safe."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Open the store in `folder`, made when missing. Raises: Failure when it cannot be opened."""
        self._clock = clock
        self._loaded: dict[Key, tuple[int, Resource]] = {}
        self.unreadable: dict[Key, str] = {}
        """What is wrong with resources that an earlier version took, as far as somebody came across them."""
        self._bell = folder / "bell"
        self.accepted = folder / "accepted"
        """Where those who use the store remember what Envoy has accepted (mesh/envoyconfig/verdicts.py)."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._bell.touch(mode=0o600)
            self._engine = sa.create_engine(f"sqlite:///{folder / 'resources.db'}", connect_args={"timeout": BUSY_S})
            sa.event.listen(self._engine, "connect", _prepare)
            self._db = self._engine.connect()
            _SCHEMA.create_all(self._db)
            self._db.commit()
        except (OSError, sa.exc.SQLAlchemyError) as error:
            cause = getattr(error, "orig", error)
            raise Failure(
                f"cannot open the resource store in {folder}: {cause}; check its owner and free space"
            ) from None

    def close(self) -> None:
        self._db.close()
        self._engine.dispose()

    def find(self, kind: str | None = None, namespace: str | None = None, *, readable: bool = False) -> list[Resource]:
        """Resources, sorted by kind, namespace and name.

        readable  leave out what cannot be read (`unreadable`), for who mends it. Others do nothing rather than half.
        Raises:   Failure when one cannot be read.
        """
        with self._transaction(write=False):
            return self._find(kind, namespace, readable=readable)

    def get(self, key: Key) -> Resource | None:
        """The resource, or None."""
        with self._transaction(write=False):
            text = self._db.execute(sa.select(_RESOURCES.c.manifest).where(*_is(key))).scalar()
        return self._load(key, text) if text else None

    def apply(self, resources: Sequence[Resource]) -> list[str]:
        """Take what users wrote; what controllers filled in stays. All or nothing.

        Returns: per resource `created`, `configured` or `unchanged`.
        """
        outcomes: list[str] = []

        def change(existing: list[Resource]) -> Update:
            update, words = merge(existing, resources)
            outcomes[:] = words
            return update

        self.update(change, readable=True)
        return outcomes

    def update(self, change: Callable[[list[Resource]], Update], *, readable: bool = False) -> Update:
        """Read everything, decide with `change`, write the outcome: one transaction that no other writer enters.

        `readable`, and what it raises, as in find().
        """
        with self._transaction(write=True):
            update = change(self._find(readable=readable))
            revision = self._revision()
            for resource in update.put:
                revision += 1
                self._write(resource.key, revision, _dump(resource, revision, self._clock()))
            for key in update.delete:
                revision += 1
                self._write(key, revision, None)
        if update:
            self._ring()
        return update

    def delete(self, keys: Iterable[Key], at_once: bool = False) -> int:
        """Forget resources; returns how many there were.

        A pod that runs is told to go, and stays until whoever runs it has ended it and deletes it `at_once`.
        """
        doomed = set(keys)
        found = 0

        def pick(existing: list[Resource]) -> Update:
            nonlocal found
            here = [one for one in existing if one.key in doomed]
            broken = doomed & self.unreadable.keys()
            found = len(here) + len(broken)
            now = timestamp(self._clock())
            staying = {one.key: told for one in here if not at_once and (told := told_to_go(one, now))}
            put = tuple(staying[one.key] for one in here if one.key in staying and staying[one.key] != one)
            return Update(put, tuple(one.key for one in here if one.key not in staying) + tuple(broken))

        self.update(pick, readable=True)
        return found

    def changes(self, since: int) -> Changes:
        """Everything that changed after revision `since`, each resource once, in order."""
        query = sa.select(_RESOURCES).where(_RESOURCES.c.revision > since).order_by(_RESOURCES.c.revision)
        with self._transaction(write=False):
            rows = self._db.execute(query).all()
        for row in rows:
            if not row.manifest:
                self._loaded.pop(Key(row.kind, row.namespace, row.name), None)
        return Changes(
            rows[-1].revision if rows else since,
            tuple(self._known(row) for row in rows if row.manifest),
            tuple(Key(row.kind, row.namespace, row.name) for row in rows if not row.manifest),
        )

    async def watch(self, since: int = 0) -> AsyncIterator[Changes]:
        """Changes after `since`, as they happen; the first ones at once."""
        import asyncio

        from mesh.inotify import CLOSED_AFTER_WRITING, Inotify

        rang = asyncio.Event()
        bell = Inotify(rang.set)
        try:
            bell.watch(self._bell, CLOSED_AFTER_WRITING)
            while True:
                rang.clear()
                if found := self.changes(since):
                    since = found.revision
                    yield found
                else:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(RECHECK_S):
                            await rang.wait()
        finally:
            bell.close()

    def _find(self, kind: str | None = None, namespace: str | None = None, readable: bool = False) -> list[Resource]:
        columns = _RESOURCES.c
        query = sa.select(_RESOURCES).where(columns.manifest.is_not(None))
        if kind is not None:
            query = query.where(columns.kind == kind)
        if namespace is not None:
            query = query.where(columns.namespace == namespace)
        order = query.order_by(columns.kind, columns.namespace, columns.name)
        found = []
        for row in self._db.execute(order):
            try:
                found.append(self._known(row))
            except Failure:
                if not readable:
                    raise
        return found

    def _known(self, row: Any) -> Resource:
        """The resource of a row, checked once for each revision: what did not change is the same object again."""
        key = Key(row.kind, row.namespace, row.name)
        found = self._loaded.get(key)
        if found is None or found[0] != row.revision:
            found = self._loaded[key] = (row.revision, self._load(key, row.manifest))
        return found[1]

    def _load(self, key: Key, manifest: str) -> Resource:
        try:
            found = parse_manifest(json.loads(manifest), "resource store")
        except ValueError as error:
            what = str(error) if isinstance(error, InvalidResource) else f"resource store ({key}): {error}"
            self.unreadable[key] = f"{what}; an earlier version has taken it: apply it anew, or delete it"
            raise Failure(self.unreadable[key]) from None
        self.unreadable.pop(key, None)
        return found

    def _revision(self) -> int:
        return int(self._db.execute(sa.select(sa.func.coalesce(sa.func.max(_RESOURCES.c.revision), 0))).scalar_one())

    def _write(self, key: Key, revision: int, manifest: str | None) -> None:
        self.unreadable.pop(key, None)
        if manifest is None:
            self._loaded.pop(key, None)
        self._db.execute(sa.delete(_RESOURCES).where(*_is(key)))
        self._db.execute(sa.insert(_RESOURCES).values(**key._asdict(), revision=revision, manifest=manifest))

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[None]:
        try:
            # IMMEDIATE takes the write lock before reading, so that no decision rests on what another writer replaces.
            self._db.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
            yield
            self._db.commit()
        except sa.exc.SQLAlchemyError as error:
            cause = str(getattr(error, "orig", error))
            remedy = "; another process has been writing for too long, see who has it open" if "locked" in cause else ""
            raise Failure(f"resource store: {cause}{remedy}") from error
        finally:
            self._db.rollback()

    def _ring(self) -> None:
        with self._bell.open("w") as bell:
            bell.write("\n")


def merge(existing: Iterable[Resource], resources: Iterable[Resource]) -> tuple[Update, list[str]]:
    """What applying `resources` would write, and per resource `created`, `configured` or `unchanged`."""
    known = {one.key: one for one in existing}
    put, outcomes = [], []
    for wanted in resources:
        old = known.get(wanted.key)
        new = _fresh(wanted) if old is None else adopt(old, wanted)
        known[wanted.key] = new
        outcomes.append("created" if old is None else "unchanged" if new == old else "configured")
        if outcomes[-1] != "unchanged":
            put.append(new)
    return Update(tuple(put)), outcomes


def adopt(old: Resource, wanted: Resource) -> Resource:
    """`wanted` with what only controllers write taken from `old`."""
    kept = ("uid", "creation_timestamp", "deletion_timestamp")
    written = {name: value for name in kept if (value := getattr(old.metadata, name)) is not None}
    new = changed(wanted, metadata=changed(wanted.metadata, **written))
    if isinstance(old, Pod) and isinstance(new, Pod):
        placed = changed(new.spec, node_name=old.spec.node_name) if old.spec.node_name else new.spec
        return changed(new, spec=placed, status=old.status)
    if isinstance(old, Deployment) and isinstance(new, Deployment):
        return changed(new, status=old.status)
    if isinstance(old, Service) and isinstance(new, Service):
        return _adopt_service(old, new)
    if hasattr(old, "status") and hasattr(new, "status"):
        return changed(new, status=old.status)
    return new


def _adopt_service(old: Service, new: Service) -> Service:
    spec = new.spec
    if not spec.cluster_ip and not old.headless and spec.type != "ExternalName":
        spec = changed(spec, cluster_ip=old.spec.cluster_ip, cluster_ips=old.spec.cluster_ips)
    if spec.type in ("NodePort", "LoadBalancer"):
        known = {(port.port, port.protocol): port.node_port for port in old.spec.ports}
        taken = {(port.node_port, port.protocol) for port in spec.ports}
        ports = []
        for port in spec.ports:
            number = known.get((port.port, port.protocol), 0)
            free = number and not port.node_port and (number, port.protocol) not in taken
            ports.append(changed(port, node_port=number) if free else port)
        spec = changed(spec, ports=tuple(ports))
    return changed(new, spec=spec, status=old.status)


def _is(key: Key) -> tuple[sa.ColumnElement[bool], ...]:
    columns = _RESOURCES.c
    return (columns.kind == key.kind, columns.namespace == key.namespace, columns.name == key.name)


def _fresh(wanted: Resource) -> Resource:
    """`wanted` as something new: when another cluster made it says nothing about this one."""
    if wanted.metadata.creation_timestamp is None:
        return wanted
    return changed(wanted, metadata=changed(wanted.metadata, creation_timestamp=None))


def _dump(resource: Resource, revision: int, now_s: float) -> str:
    """The stored form. When it is first written, a resource gets the time, and a uid of its key and that revision."""
    metadata = resource.metadata
    if not metadata.uid:
        uid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"flowscope:{resource.key}:{revision}"))
        metadata = changed(metadata, uid=uid)
    if not metadata.creation_timestamp:
        metadata = changed(metadata, creation_timestamp=timestamp(now_s))
    return json.dumps(changed(resource, metadata=metadata).dump())


def _prepare(connection: Any, _record: object) -> None:
    # Transactions begin where we say so, not where the driver guesses.
    connection.isolation_level = None
    # A reader never waits for a writer; a crash of ours loses nothing, a power cut may lose the last change.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
