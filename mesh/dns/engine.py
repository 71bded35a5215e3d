"""What happens to a query, whichever protocol brought it.

In:        queries with the addresses of client and server; answers of servers, or that there is none.
Out:       an answer to give at once, or a Waiting to ask the server for; records of both; what an answer teaches.
Elsewhere: judge.py decides; udp.py and tcp.py own the sockets; link.py tells the agent.
Source: spec/policy.md section 9.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from mesh.dns.answers import Address, name_text, read_reply
from mesh.dns.flows import DENIED, ERROR, FORWARDED, Flows
from mesh.dns.judge import Judge, Scope
from mesh.dns.patterns import normal
from mesh.dns.wire import HEADER, OPT, Code, Malformed, parse_query, render_error
from mesh.records import Records

REJECTIONS: Final = {"refused": Code.REFUSED, "nameError": Code.NAME_ERROR}
_REMEMBERED: Final = 8192
_RESPONSE: Final = 0x80
_RECURSION_AVAILABLE: Final = 0x80
_KEPT_FLAGS: Final = 0x79
"""Of a query's first byte of flags: opcode and RD go back as they came."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait at once."""

    waiting: int = 10_000
    waiting_of_one: int = 2_000
    """From one client to one server: a server that never answers must not take the room of others."""
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, read once for as long as it is asked again and again."""

    question: bytes
    name: str
    """As it was asked, with the final dot."""
    normal: str
    type: int


class Speaker(Protocol):
    """The way back to clients."""

    def answer(self, packet: bytes, client: tuple[str, int]) -> None:
        """Send an answer; a client that is gone is no error."""


@dataclass(slots=True)
class Waiting:
    """A query that a server has been asked."""

    scope: Scope
    asked: Asked
    ident: bytes
    """As the client chose it."""
    query: bytes
    client: tuple[str, int]
    speaker: Speaker
    started_ns: int


class Learner(Protocol):
    """Who has to know addresses of names."""

    def learn(
        self,
        endpoint: int,
        name: str,
        addresses: tuple[Address, ...],
        ttl_s: int,
        then: Callable[[], None] | None,
    ) -> None:
        """An answer is about to pass. `then`, where there is one, is called once the policy knows, or not in time."""


class Engine:
    """Belongs to one loop."""

    def __init__(self, judge: Judge, records: Records, limits: Limits, rejection: Code, learner: Learner) -> None:
        self.limits = limits
        self.counts: Counter[str] = Counter()
        """What happened, by what it was."""
        self.waiting = 0
        self._judge = judge
        self._records = records
        self._rejection = rejection
        self._learner = learner
        self._questions: dict[bytes, Asked] = {}
        self._flows: dict[int, tuple[Scope, Flows]] = {}

    def ask(
        self, packet: bytes, client: tuple[str, int], server: tuple[str, int], protocol: int, speaker: Speaker
    ) -> Waiting | None:
        """Judge a query. Returns it if the server is to be asked; else the client has its answer already."""
        now_ns = time.time_ns()
        scope = self._judge.scope(client[0], server[0], server[1], protocol)
        try:
            asked = self._read(packet)
        except Malformed as error:
            self.counts["malformed_queries"] += 1
            if scope is not None:
                self._records.add(self._flows_of(scope).query(client[1], "", 0, ERROR, now_ns))
            if error.ident is not None:
                speaker.answer(render_error(error.ident, Code.FORMAT_ERROR), client)
            return None
        if scope is None or scope.rules is None:
            self.counts["unknown_clients"] += 1
            if scope is not None:
                self._tell(scope, client, asked, ERROR, now_ns)
            speaker.answer(refusal(packet, asked, Code.SERVER_FAILURE), client)
            return None
        if not scope.allows(asked.normal):
            self.counts["refused"] += 1
            self._tell(scope, client, asked, DENIED, now_ns)
            speaker.answer(refusal(packet, asked, self._rejection), client)
            return None
        if self.waiting >= self.limits.waiting or scope.waiting >= self.limits.waiting_of_one:
            self.counts["over_limit"] += 1
            self._tell(scope, client, asked, ERROR, now_ns)
            speaker.answer(refusal(packet, asked, Code.SERVER_FAILURE), client)
            return None
        self.counts["forwarded"] += 1
        self._tell(scope, client, asked, FORWARDED, now_ns)
        self.waiting += 1
        scope.waiting += 1
        return Waiting(scope, asked, packet[:2], packet, client, speaker, now_ns)

    def answered(self, waiting: Waiting, packet: bytes) -> None:
        """The server has answered: the client gets that once the policy knows it."""
        self._finish(waiting)
        try:
            reply = read_reply(packet, waiting.asked.question)
        except Malformed:
            self.counts["malformed_answers"] += 1
            self._fail(waiting)
            return
        now_ns = time.time_ns()
        scope, asked, client = waiting.scope, waiting.asked, waiting.client
        flow = self._flows_of(scope).answer(
            client[1], asked.name, asked.type, reply, now_ns, max(0, now_ns - waiting.started_ns)
        )
        response = waiting.ident + packet[2:]
        if reply.code or not reply.addresses:
            self._records.add(flow)
            waiting.speaker.answer(response, client)
            return
        teach = self._learner.learn
        endpoint, ttl_s = scope.client.endpoint, reply.ttl_s or 0
        if not self._judge.is_selected(asked.normal):
            teach(endpoint, asked.normal, reply.addresses, ttl_s, None)
            self._records.add(flow)
            waiting.speaker.answer(response, client)
            return

        def release() -> None:
            self._records.add(flow)
            waiting.speaker.answer(response, client)

        teach(endpoint, asked.normal, reply.addresses, ttl_s, release)

    def failed(self, waiting: Waiting) -> None:
        """The server cannot be asked, or cannot answer."""
        self.counts["upstream_errors"] += 1
        self._finish(waiting)
        self._fail(waiting)

    def timed_out(self, waiting: Waiting) -> None:
        """The server does not answer; neither do we, so that the client tries again, perhaps elsewhere."""
        self.counts["upstream_timeouts"] += 1
        self._finish(waiting)
        self._tell(waiting.scope, waiting.client, waiting.asked, ERROR, time.time_ns())

    def abandoned(self, waiting: Waiting) -> None:
        """The client has gone."""
        self._finish(waiting)

    def _finish(self, waiting: Waiting) -> None:
        self.waiting -= 1
        waiting.scope.waiting -= 1

    def _fail(self, waiting: Waiting) -> None:
        self._tell(waiting.scope, waiting.client, waiting.asked, ERROR, time.time_ns())
        waiting.speaker.answer(refusal(waiting.query, waiting.asked, Code.SERVER_FAILURE), waiting.client)

    def _tell(self, scope: Scope, client: tuple[str, int], asked: Asked, verdict: str, now_ns: int) -> None:
        self._records.add(self._flows_of(scope).query(client[1], asked.name, asked.type, verdict, now_ns))

    def _read(self, packet: bytes) -> Asked:
        # All but the id: what is asked again is not read again.
        key = packet[2:]
        found = self._questions.get(key)
        if found is None:
            query = parse_query(packet)
            name = name_text(query.question[:-4])
            found = Asked(query.question, name, normal(name), query.type)
            if len(self._questions) >= _REMEMBERED:
                self._questions.clear()
            self._questions[key] = found
        return found

    def _flows_of(self, scope: Scope) -> Flows:
        # By identity of the object: a scope is made anew when anything about it changes.
        known = self._flows.get(id(scope))
        if known is None or known[0] is not scope:
            if len(self._flows) >= _REMEMBERED:
                self._flows.clear()
            known = self._flows[id(scope)] = scope, Flows(scope)
        return known[1]


def refusal(query: bytes, asked: Asked, code: Code) -> bytes:
    """An answer without records: the question goes back as it came, and with it EDNS if the client speaks it."""
    edns = query[HEADER.size + len(asked.question) :]
    opt = _OPT if len(edns) >= 11 and edns[0] == 0 and int.from_bytes(edns[1:3], "big") == OPT else b""
    flags = bytes((_RESPONSE | query[2] & _KEPT_FLAGS, _RECURSION_AVAILABLE | code))
    counts = b"\0\1\0\0\0\0" + (b"\0\1" if opt else b"\0\0")
    return query[:2] + flags + counts + asked.question + opt


_OPT: Final = b"\0" + OPT.to_bytes(2, "big") + (1232).to_bytes(2, "big") + bytes(6)
