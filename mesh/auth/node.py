"""Mutual authentication on one node.

In:        the agent's rounds; pairs that packets ask the kernel for.
Out:       records in the kernel; requests for certificates in the store; a word about who is not authenticated and why.
Elsewhere: attempts.py says when, handshake.py how, keyring.py with what; bpf/auth.py is the kernel's part.

Nothing of this runs until a policy of the cluster asks for it. Whatever goes wrong here leaves packets dropped: records
are only written after both sides have proved themselves, and end with the shorter-lived of their certificates.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from logging import DEBUG, INFO
from pathlib import Path
from typing import Any, Final, Self

import structlog

from bpf import auth as kernel
from bpf.datapath import Datapath
from bpf.facts import AuthPair, Endpoint, IpcacheEntry, Prefix
from bpf.libbpf import BpfError
from bpf.policies import EndpointPolicy
from mesh.auth.attempts import Attempts
from mesh.auth.handshake import Listener, NotProved, prove
from mesh.auth.keyring import Keyring
from mesh.auth.rules import Asked, NodeIds, asked_by
from mesh.auth.spiffe import may_prove
from mesh.cluster import Cluster
from mesh.config import AgentConfig
from mesh.identities import RESERVED
from mesh.resources.base import Resource
from mesh.resources.cluster import Node
from mesh.store import Store
from service.failure import Failure

POLL_S: Final = 0.05
"""How long a packet's question may lie in the kernel. TCP sends again after a second."""
IDLE_S: Final = 1.0
"""The same where no policy asks."""
TIDY_S: Final = 1.0
RENEWED_BEFORE: Final = 0.25
"""Part of a certificate's time: records that are used are renewed this long before their end."""
SHOWN: Final = 3

log = structlog.get_logger(component="authentication")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """How a node authenticates."""

    port: int
    """Where agents listen for each other; 0: nobody is authenticated here."""
    lifetime_s: int
    """How long certificates are to hold, and records at most."""

    @classmethod
    def of(cls, config: AgentConfig) -> Self:
        """As the agent's settings say."""
        return cls(port=config.auth_port, lifetime_s=config.auth_lifetime_s)


class NodeAuthentication:
    """Owns the keyring, the listener, the attempts, and the records in the kernel."""

    def __init__(self, folder: Path, node: Node, store: Store, datapath: Datapath, settings: AuthSettings) -> None:
        """`folder` is for keys."""
        self._node = node
        self._store = store
        self._datapath = datapath
        self._settings = settings
        self._keyring = Keyring(folder, node.name, settings.lifetime_s)
        self._listener = Listener(self._keyring.credential, lambda: self._keyring.trust)
        self._attempts = Attempts()
        self._renew_s = max(1, int(settings.lifetime_s * RENEWED_BEFORE))
        self._nodes = NodeIds()
        self._asked = Asked()
        self._identities: frozenset[int] = frozenset()
        """Of the node's pods, when somebody may ask for them."""
        self._known: frozenset[int] = frozenset()
        """All identities of the cluster."""
        self._names: dict[str, str] = {}
        """Of nodes, by address."""
        self._missed = 0
        """Questions that the kernel had no room for."""
        self._proved: set[AuthPair] = set()
        """Pairs that have records."""
        self._problems: dict[str, str] = {}
        """By the step that they hold up."""
        self._work: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Go on where an earlier agent stopped. Raises: Failure."""
        self._keyring.restore()
        self._nodes.restore(self._datapath.ipcache())
        self._datapath.configure(auth_renew_s=self._renew_s)
        self._spawn(self._serve())

    async def stop(self) -> None:
        """Shake no more hands; records stay."""
        self._listener.close()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def mark(self, entries: Mapping[Prefix, IpcacheEntry]) -> dict[Prefix, IpcacheEntry]:
        """What the kernel is to know of addresses, with the nodes that records are about."""
        return self._nodes.mark(entries)

    def update(
        self,
        cluster: Cluster,
        wanted: bool,
        endpoints: Mapping[int, Endpoint],
        policies: Mapping[int, EndpointPolicy],
    ) -> None:
        """Take a round's outcome; after `mark`, and after policies and addresses have reached the kernel.

        wanted  whether any policy of the cluster asks for authentication.
        """
        self._names = {address: node.name for node in cluster.nodes() for address in node.ips}
        self._known = frozenset(int(one.name) for one in cluster.identities())
        pods = {one.identity for one in endpoints.values() if may_prove(one.identity)}
        self._identities = frozenset(pods if wanted and self._settings.port else ())
        self._asked = asked_by(endpoints, policies)
        self._guarded("certificates", lambda: self._settle(list(cluster.resources.values())))
        self._guarded("records", self._tidy)

    def status(self) -> dict[str, Any]:
        """For the agent's report."""
        failures = [f"{self._words(pair)}: {reason}" for pair, reason in sorted(self._attempts.failures().items())]
        facts = {
            "records": len(self._proved),
            "certificates": self._keyring.count(),
            "answered": dict(self._listener.counts),
            "failed_pairs": len(failures),
            "failures": failures[:SHOWN],
            "questions_lost": self._missed + self._attempts.refused,
        }
        if not self._asked and not self._identities:
            return {"state": "disabled", "message": "no policy asks for authentication", **facts}
        if self._problems:
            return {"state": "warning", "message": next(iter(self._problems.values())), **facts}
        if failures:
            more = f" (and {len(failures) - 1} more pairs)" if len(failures) > 1 else ""
            return {"state": "warning", "message": f"not authenticated: {failures[0]}{more}", **facts}
        if missing := self._keyring.missing():
            listed = ", ".join(map(str, missing[:SHOWN]))
            return {"state": "warning", "message": f"no controller has certified identity {listed}", **facts}
        message = f"{len(self._proved)} pairs authenticated, {self._keyring.count()} certificates"
        return {"state": "ok", "message": message, **facts}

    # ---- rounds ----

    def _settle(self, resources: list[Resource]) -> None:
        """Certificates and listener as they are to be."""
        self._keyring.take(resources)
        put, delete = self._keyring.ask(self._identities, resources)
        if put:
            self._store.apply(put)
        if delete:
            self._store.delete(delete)
        if self._identities and not self._listener.is_open:
            try:
                self._listener.open(self._node.ips[0], self._settings.port)
            except OSError as error:
                said = error.strerror or error
                raise Failure(f"cannot listen on port {self._settings.port}: {said}; see --auth-port") from None
        elif not self._identities:
            self._listener.close()

    def _tidy(self) -> None:
        """Records that nobody may use any more, and questions that nobody may ask."""
        table, now_ns = self._datapath.auth(), kernel.now_ns()
        records = table.records()
        gone = [pair for pair, expires_ns in records.items() if expires_ns <= now_ns or not self._may_have(pair)]
        table.revoke(gone)
        table.answer(self._attempts.keep(self._asked.__contains__))
        self._proved = records.keys() - set(gone)
        self._missed = table.missed()

    def _may_have(self, pair: AuthPair) -> bool:
        if pair not in self._asked or pair.remote not in self._known:
            return False
        return pair.node_id == 0 or self._nodes.address(pair.node_id) is not None

    def _guarded(self, name: str, step: Callable[[], None]) -> None:
        """Try again next time what fails now; it is told once, and packets stay dropped meanwhile."""
        try:
            step()
        except (BpfError, Failure) as error:
            if str(error) != self._problems.get(name):
                log.error("cannot authenticate", reason=str(error))
            self._problems[name] = str(error)
        else:
            self._problems.pop(name, None)

    # ---- questions of the kernel ----

    async def _serve(self) -> None:
        tidied_s = renewed_s = time.monotonic()
        renewal_s = max(1.0, self._settings.lifetime_s / 20)
        while True:
            await asyncio.sleep(POLL_S if self._asked else IDLE_S)
            now_s = time.monotonic()
            if self._asked:
                self._guarded("questions", self._look)
            if now_s - tidied_s > TIDY_S and (self._asked or self._proved):
                tidied_s = now_s
                self._guarded("records", self._tidy)
            if now_s - renewed_s > (TIDY_S if "certificates" in self._problems else renewal_s) and self._identities:
                renewed_s = now_s
                self._guarded("certificates", lambda: self._settle(self._store.find()))

    def _look(self) -> None:
        table, now_s = self._datapath.auth(), time.monotonic()
        wanted = table.wanted()
        # Left from a policy that is gone.
        table.answer(pair for pair in wanted if pair not in self._asked)
        for pair in self._attempts.due((pair for pair in wanted if pair in self._asked), now_s):
            self._spawn(self._authenticate(pair))
        table.answer(self._attempts.answered(now_s))

    async def _authenticate(self, pair: AuthPair) -> None:
        try:
            expires_ns = await self._handshake(pair)
            if not self._may_have(pair):
                raise NotProved("no policy asks for it any more")
            table = self._datapath.auth()
            table.allow(pair, expires_ns)
            left_s = (expires_ns - kernel.now_ns()) // 10**9
            log.log(DEBUG if pair in self._proved else INFO, "authenticated", pair=self._words(pair), seconds=left_s)
            self._proved.add(pair)
            if left_s < self._renew_s:
                # Packets would ask again at once, and learn the same.
                raise NotProved(f"certificates end in {left_s} s and are not renewed; does a controller run?")
            table.answer([pair])
        except (NotProved, BpfError) as error:
            if self._attempts.failed(pair, str(error), time.monotonic()):
                log.warning("not authenticated", pair=self._words(pair), reason=str(error))
        else:
            self._attempts.succeeded(pair)

    async def _handshake(self, pair: AuthPair) -> int:
        """When the pair's record is to end. Raises: NotProved."""
        for identity in (pair.local, pair.remote):
            if not may_prove(identity):
                raise NotProved(f"identity {_name(identity)} is no pod's: nobody can prove it")
        if not self._settings.port:
            raise NotProved("authentication is switched off on this node; see --auth-port")
        own = self._keyring.credential(pair.local)
        if own is None:
            raise NotProved(f"this node has no certificate of identity {pair.local} yet")
        address = ip_address(self._node.ips[0]) if pair.node_id == 0 else self._nodes.address(pair.node_id)
        if address is None:
            raise NotProved("the other node is gone")
        ends_s = min(own.certificate.ends_s, await prove(address, self._settings.port, own, pair.remote))
        left_s = min(ends_s - time.time(), self._settings.lifetime_s)
        if left_s <= 0:
            raise NotProved("a certificate is over; are the nodes' clocks right?")
        if pair.node_id and self._nodes.address(pair.node_id) != address:
            raise NotProved("the other node has moved")
        return kernel.now_ns() + int(left_s * 10**9)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    # ---- words ----

    def _words(self, pair: AuthPair) -> str:
        where = self._node.name
        if pair.node_id:
            address = str(self._nodes.address(pair.node_id) or "a node that is gone")
            where = self._names.get(address, address)
        return f"{_name(pair.local)} with {_name(pair.remote)} on {where}"


def _name(identity: int) -> str:
    words = RESERVED.get(identity)
    return f"{identity} ({words[0]})" if words else str(identity)
