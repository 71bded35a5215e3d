"""From addresses and numbers to table entries, remembered.

In:        what an event says (address, identity, port, interface, rule) and the node's knowledge.
Out:       indices into the tables that rows point into: one at a time, or for whole columns.
Elsewhere: knowledge.py knows; cache.py remembers columns.

Names repeat far more often than they change, so an answer is worked out once and looked up per event. All answers are
forgotten when the knowledge changes or the tables renumber their entries.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from model.address import Address
from model.decode.cache import U32, U64, KeyCache
from model.knowledge import Knowledge, PolicyKey
from model.tables import Interface, Tables
from model.vocabulary import DROP_FILES
from model.whole_rows import take
from proto.flow import flow_pb2

_KEYS: Final = 1 << 18
"""Keys remembered per kind of question; more are forgotten all at once."""

END: Final = np.dtype([("endpoint", "<u4"), ("id", "<u4"), ("identity", "<u4"), ("marks", "<u4")])


class Mark(IntEnum):
    """What an address may have to be asked for."""

    NAMED = 1
    """DNS names are known for it."""
    FRONTEND = 2
    """Some service listens on it."""


class End(NamedTuple):
    """One side of a flow."""

    endpoint: int
    """Index in Tables.endpoints."""
    id: int
    """Of a local endpoint; else 0."""
    identity: int


class Outcome(IntEnum):
    """What a policy verdict says about rules."""

    NOTHING = 0
    ALLOWED = 1
    DENIED = 2


_LOW_32: Final = 0xFFFF_FFFF
FAMILY_SHIFT: Final = 32
"""In keys of columns the IP version (4, 6, or 0 for no address) stands above 32 bits of identity, id or port."""


class Resolver:
    """Answers for one decoder. Not thread-safe, like the tables it fills."""

    def __init__(self, tables: Tables, knowledge: Knowledge) -> None:
        self.tables = tables
        self._knowledge = knowledge
        self._forget()

    @property
    def knowledge(self) -> Knowledge:
        """What is known now."""
        return self._knowledge

    def update(self, knowledge: Knowledge) -> None:
        """Know this from now on. What was decoded before stays as it was seen."""
        self._knowledge = knowledge
        self._forget()

    def refresh(self) -> bool:
        """Forget indices that the tables have renumbered. True if they have; call before each batch."""
        if self._generation == self.tables.generation:
            return False
        self._forget()
        return True

    def _forget(self) -> None:
        self._generation = self.tables.generation
        self._one: dict[tuple[Address | None, int], End] = {}
        self._one_iface: dict[int, int] = {}
        self._one_drop_place: dict[int, int] = {}
        self._one_verdict: dict[tuple[int, PolicyKey, Outcome, int], int] = {}
        self._ends = np.zeros(1024, END)
        self._ends_used = 0
        self._ends_cleared = 0
        self._end_cache = KeyCache(3, _KEYS)
        self._name_cache = KeyCache(3, _KEYS)
        self._service_cache = KeyCache(3, _KEYS)
        self._iface_cache = KeyCache(1, _KEYS)
        self._file_cache = KeyCache(1, _KEYS)
        self._xlated_cache = KeyCache(3, _KEYS)
        self._verdict_cache = KeyCache(2, _KEYS)

    # One at a time.

    def end(self, address: Address | None, identity: int) -> End:
        """Who has `address`; `identity` is the event's, 0 if it has none."""
        end = self._one.get((address, identity))
        if end is None:
            message = self._knowledge.endpoint_message(address, identity)
            index = self.tables.endpoints.intern(message.SerializeToString(deterministic=True))
            end = End(index, message.ID, message.identity)
            if len(self._one) >= _KEYS:
                self._one.clear()
            self._one[address, identity] = end
        return end

    def names(self, endpoint_id: int, address: Address | None) -> int:
        """Index of the DNS names that a local endpoint knows for `address`."""
        names = self._knowledge.names(endpoint_id, address)
        return self.tables.names.intern(names) if names else 0

    def service(self, address: Address | None, port: int) -> int:
        """Index of the service behind a frontend."""
        service = self._knowledge.service(address, port)
        return self.tables.services.intern(service) if service else 0

    def interface(self, ifindex: int) -> int:
        """Index of an interface; 0 is no interface, and one without a known name still has its number."""
        if not ifindex:
            return 0
        index = self._one_iface.get(ifindex)
        if index is None:
            if len(self._one_iface) >= _KEYS:
                self._one_iface.clear()
            name = self._knowledge.links.get(ifindex, "")
            index = self._one_iface[ifindex] = self.tables.ifaces.intern(Interface(ifindex, name))
        return index

    def drop_place(self, file: int, line: int) -> int:
        """Index of the aux entry that says where in the datapath's source a packet was dropped."""
        key = file << 16 | line
        index = self._one_drop_place.get(key)
        if index is None:
            place = flow_pb2.FileInfo(name=DROP_FILES.get(file, f"unknown({file})"), line=line)
            index = self._one_drop_place[key] = self.aux(flow_pb2.Flow(file=place))
        return index

    def verdict(self, endpoint_id: int, key: PolicyKey, outcome: Outcome, auth_type: int) -> int:
        """Index of the aux entry that names the rules behind a policy verdict."""
        about = (endpoint_id, key, outcome, auth_type)
        index = self._one_verdict.get(about)
        if index is None:
            if len(self._one_verdict) >= _KEYS:
                self._one_verdict.clear()
            index = self._one_verdict[about] = self.aux(self._verdict(*about))
        return index

    def aux(self, message: flow_pb2.Flow) -> int:
        """Index of the fields that a row has no column for."""
        data = message.SerializeToString(deterministic=True)
        return self.tables.aux.intern(data) if data else 0

    # Columns.

    def ends(self, hi: U64, lo: U64, family_identity: U64) -> npt.NDArray[np.void]:
        """Who has the addresses: one END for each."""
        at = self._end_cache.look_up((hi, lo, family_identity), self._make_end)
        return take(self._ends, at)  # only now: what was new has been added

    def names_column(self, hi: U64, lo: U64, family_id: U64) -> U32:
        """`names` for addresses, each with the id of the endpoint that is asked."""

        def make(hi: int, lo: int, rest: int) -> int:
            return self.names(rest & _LOW_32, _address(hi, lo, rest))

        return self._name_cache.look_up((hi, lo, family_id), make)

    def services_column(self, hi: U64, lo: U64, family_port: U64) -> U32:
        """`service` for addresses and ports."""

        def make(hi: int, lo: int, rest: int) -> int:
            return self.service(_address(hi, lo, rest), rest & _LOW_32)

        return self._service_cache.look_up((hi, lo, family_port), make)

    def interfaces_column(self, ifindex: U64) -> U32:
        """`interface` for many."""
        return self._iface_cache.look_up((ifindex,), self.interface)

    def drop_places_column(self, file_line: U64) -> U32:
        """Aux of drops: file id, and line in the lower 16 bits, of the datapath's source."""
        return self._file_cache.look_up((file_line,), lambda key: self.drop_place(key >> 16, key & 0xFFFF))

    def xlated_column(self, hi: U64, lo: U64, family: U64) -> U32:
        """Aux of translated packets: the source address in the packet, where the flow shows the one before."""

        def make(hi: int, lo: int, family: int) -> int:
            return self.aux(flow_pb2.Flow(IP=flow_pb2.IP(source_xlated=str(Address(family, hi << 64 | lo)))))

        return self._xlated_cache.look_up((hi, lo, family), make)

    def verdicts_column(self, identity_protocol_port: U64, endpoint_about: U64) -> U32:
        """Aux of policy verdicts.

        identity_protocol_port  32, 16 and 16 bits of the policy entry's key
        endpoint_about          32 bits id of the local endpoint; 8 bits each: auth type, 1 if ingress, Outcome
        """

        def make(key: int, about: int) -> int:
            policy_key = PolicyKey(bool(about >> 8 & 0xFF), key >> 32, key >> 16 & 0xFFFF, key & 0xFFFF)
            return self.verdict(about >> 32, policy_key, Outcome(about & 0xFF), about >> 16 & 0xFF)

        return self._verdict_cache.look_up((identity_protocol_port, endpoint_about), make)

    def _verdict(self, endpoint_id: int, key: PolicyKey, outcome: Outcome, auth_type: int) -> flow_pb2.Flow:
        """The parts of a policy verdict's flow that name rules."""
        flow = flow_pb2.Flow()
        flow.auth_type = auth_type  # type: ignore[assignment]  # the API keeps numbers that it does not know
        endpoint = self._knowledge.endpoints_by_id.get(endpoint_id) if outcome else None
        entry = endpoint.policy.get(key) if endpoint else None
        if entry:
            direction = "ingress" if key.ingress else "egress"
            getattr(flow, f"{direction}_{outcome.name.lower()}_by").extend(entry.policies)
            flow.policy_log.extend(entry.log)
        return flow

    def _make_end(self, hi: int, lo: int, family_identity: int) -> int:
        if self._ends_cleared != self._end_cache.cleared:
            self._ends_cleared, self._ends_used = self._end_cache.cleared, 0
        if self._ends_used == len(self._ends):
            self._ends = np.concatenate([self._ends, np.zeros(len(self._ends), END)])
        address = _address(hi, lo, family_identity)
        end = self.end(address, family_identity & _LOW_32)
        marks = 0
        if address in self._knowledge.named_addresses:
            marks |= Mark.NAMED
        if address in self._knowledge.service_addresses:
            marks |= Mark.FRONTEND
        self._ends[self._ends_used] = (*end, marks)
        self._ends_used += 1
        return self._ends_used - 1


def _address(hi: int, lo: int, family_and_rest: int) -> Address | None:
    version = family_and_rest >> FAMILY_SHIFT
    return Address(version, hi << 64 | lo) if version else None
