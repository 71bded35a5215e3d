"""The proxy's line to the agent: rules come, names go.

In:        rules, from the agent, whenever they change; addresses of names, from answers.
Out:       rules for the judge, acknowledged; what was learned; a sign once the policy knows it, or does not in time.
Elsewhere: keeper.py is the other end, where the words of both are written down.

While no agent is there, the last rules hold, answers pass without waiting, and what they teach is told to the next
agent.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

import orjson
import structlog

from mesh.dns.answers import Address
from mesh.dns.judge import Judge, Rules

LARGEST_MESSAGE: Final = 64 * 2**20
RETRY_S: Final = 0.1
REFRESH_S: Final = 1.0
"""A lifetime that is longer by less is not worth telling."""
REMEMBERED: Final = 20_000
"""Names of clients of which we know what the agent knows."""

log = structlog.get_logger(component="dns-proxy")


@dataclass(slots=True)
class _Known:
    addresses: frozenset[Address]
    expires_s: float
    confirmed: bool


class Link:
    """Belongs to one loop. Keeps trying to reach the agent."""

    def __init__(self, path: str, hello: dict[str, Any], judge: Judge, patience_s: float) -> None:
        """
        hello       told to the agent first.
        patience_s  how long an answer may wait for the policy.
        """
        self.ready = asyncio.Event()
        """Rules have come."""
        self.late = 0
        """Answers that passed before the policy knew them."""
        self._path = path
        self._hello = hello
        self._judge = judge
        self._patience_s = patience_s
        self._writer: asyncio.StreamWriter | None = None
        self._known: OrderedDict[tuple[int, str], _Known] = OrderedDict()
        self._waiting: dict[int, tuple[tuple[int, str], Callable[[], None], asyncio.TimerHandle]] = {}
        self._next = 0

    async def run(self) -> None:
        """Stay connected."""
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(self._path, limit=LARGEST_MESSAGE)
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            try:
                self._send(self._hello | {"learned": self._everything()})
                while line := await reader.readline():
                    self._obey(orjson.loads(line))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("the agent is gone", error=str(error))
            finally:
                self._writer.close()
                self._writer = None
                for number in list(self._waiting):
                    self._release(number, confirmed=False)
            await asyncio.sleep(RETRY_S)

    def learn(
        self,
        endpoint: int,
        name: str,
        addresses: tuple[Address, ...],
        ttl_s: int,
        then: Callable[[], None] | None,
    ) -> None:
        """Tell what an answer teaches, unless the agent knows; see engine.Learner."""
        key = endpoint, name
        now_s = time.time()
        known = self._known.pop(key, None)
        fresh = known is None or known.expires_s < now_s or not known.addresses.issuperset(addresses)
        if fresh or known is None:
            # What was known before stays known: it is the agent that forgets.
            before = known.addresses if known is not None and known.expires_s >= now_s else frozenset[Address]()
            known = _Known(before.union(addresses), 0.0, False)
        self._known[key] = known
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        told = fresh or now_s + ttl_s > known.expires_s + REFRESH_S
        if told:
            known.expires_s = max(known.expires_s, now_s + ttl_s)
        wait = then is not None and not known.confirmed and self._writer is not None
        if not told and not wait:
            if then is not None:
                then()
            return
        message: dict[str, Any] = {"learned": [[endpoint, name, [str(one) for one in addresses], ttl_s]]}
        if wait and then is not None:
            self._next += 1
            message["number"] = self._next
            late = asyncio.get_running_loop().call_later(self._patience_s, self._late, self._next)
            self._waiting[self._next] = key, then, late
        self._send(message)
        if not wait and then is not None:
            then()

    def _everything(self) -> list[list[object]]:
        now_s = time.time()
        return [
            [endpoint, name, [str(one) for one in known.addresses], max(0, round(known.expires_s - now_s))]
            for (endpoint, name), known in self._known.items()
            if known.expires_s > now_s
        ]

    def _obey(self, message: dict[str, Any]) -> None:
        if "rules" in message:
            self._judge.update(Rules.from_json(message["rules"]))
            for known in self._known.values():
                # Other selectors may mean a name now.
                known.confirmed = False
            self.ready.set()
            self._send({"obeyed": message["revision"]})
        if "known" in message:
            self._release(message["known"], confirmed=True)

    def _late(self, number: int) -> None:
        self.late += 1
        self._release(number, confirmed=False)

    def _release(self, number: int, confirmed: bool) -> None:
        found = self._waiting.pop(number, None)
        if found is None:
            return
        key, then, late = found
        late.cancel()
        known = self._known.get(key)
        if known is not None and confirmed:
            known.confirmed = True
        then()

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(orjson.dumps(message) + b"\n")


def parse_learned(told: list[list[Any]]) -> list[tuple[int, str, tuple[Address, ...], int]]:
    """What a proxy says it learned. Raises: ValueError, TypeError for anything else."""
    return [
        (int(endpoint), str(name), tuple(ip_address(one) for one in addresses), int(ttl_s))
        for endpoint, name, addresses, ttl_s in told
    ]
