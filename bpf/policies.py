"""Policy maps: one for each endpoint that has a policy, replaced as a whole.

In:        the entries that the agent has compiled for an endpoint.
Out:       a map in `flowscope_policies`, by the endpoint's id, and its pin `cilium_policy_v2_<id>`.
Elsewhere: mesh/policy/ compiles; include/policy.h looks up; datapath.py is the door.

A change makes a new map aside, fills it and puts it in the old one's place in one step. Endpoints with equal policies
share one map, so a policy for hundreds of pods costs what it costs for one.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bpf import maps
from bpf.handles import Map, MapType
from bpf.libbpf import BpfError

MAX_ENTRIES: Final = 16384
"""Entries of one endpoint, that of the settings included."""
ALLOW: Final = 1
"""Precedence of a plain allow."""
ALL_PORTS: Final = 0

AUTH_EXPLICIT: Final = 0x80
"""Beside a type of authentication: a rule names it."""
_AUTH_TYPE: Final = 0x7F

_NO_PREALLOC: Final = 1
_ALL_BITS: Final = 16
_PROTOCOL_BITS: Final = 8
_NEW: Final = "_new"
_REFUSES_BATCHES: Final = frozenset({524, errno.EINVAL, errno.EOPNOTSUPP})  # 524 is the kernel's own ENOTSUPP


class PolicyTooLarge(BpfError):
    """More entries than a policy map holds; nothing was changed."""


class PolicyEntry(NamedTuple):
    """One line of a policy map: what happens to packets of an identity, a protocol and a block of ports."""

    egress: bool
    identity: int
    """Of the other side; 0: any."""
    protocol: int = 0
    """IP protocol; 0: any, and any port with it."""
    port: int = 0
    """First port of the block, or type of an ICMP message."""
    port_bits: int = ALL_PORTS
    """Length of the port's prefix: 16 is one port, 0 are all."""
    precedence: int = ALLOW
    """Of two entries that fit, the one with the higher number decides (spec/datapath.md, section 11)."""
    deny: bool = False
    proxy_port: int = 0
    """Where a proxy listens that decides further; 0: none."""
    auth: int = 0
    """Authentication type, with AUTH_EXPLICIT where a rule names it."""
    cookie: int = 0
    """Names the rules behind this entry in verdict events."""

    @property
    def prefix_bits(self) -> int:
        """Bits of protocol and port that have to be equal: 0, or 8 to 24."""
        return _PROTOCOL_BITS + self.port_bits if self.protocol else 0


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """Everything the kernel has to know about one endpoint's policy. Enforced in no direction: no policy at all."""

    entries: tuple[PolicyEntry, ...] = ()
    enforced_ingress: bool = False
    """Without it, everything may come in, whatever the entries say."""
    enforced_egress: bool = False
    audit: bool = False
    """What is denied passes all the same and is told as audited."""

    @property
    def enforced(self) -> bool:
        """In some direction."""
        return self.enforced_ingress or self.enforced_egress

    def effective_entries(self) -> list[PolicyEntry]:
        """The entries of enforced directions, and for another one the entry that lets everything pass."""
        enforced = {False: self.enforced_ingress, True: self.enforced_egress}
        kept = [entry for entry in self.entries if enforced[entry.egress]]
        return kept + [PolicyEntry(egress, 0) for egress, on in enforced.items() if not on]


class Content(NamedTuple):
    """Keys and values of a policy map as bytes; equal for equal policies."""

    keys: bytes
    values: bytes


def encode(policy: EndpointPolicy) -> Content:
    """The bytes of a policy's map. Raises: PolicyTooLarge."""
    entries = policy.effective_entries()
    size = len(entries) + 1
    if size > MAX_ENTRIES:
        raise PolicyTooLarge(
            f"the policy needs {size} entries, a map has {MAX_ENTRIES}: the old policy stays; "
            "use wider selectors, prefixes or port ranges",
            errno.E2BIG,
        )
    egress, identity, protocol, port, _, precedence, deny, proxy_port, auth, cookie = zip(
        *entries, _settings(policy), strict=True
    )
    bits = np.array([entry.prefix_bits for entry in entries] + [maps.POLICY_FULL_BITS - maps.POLICY_STATIC_BITS])
    keys = np.zeros(size, maps.POLICY_KEY)
    keys["prefix_length"] = maps.POLICY_STATIC_BITS + bits
    keys["identity"] = identity
    keys["egress"] = egress
    keys["protocol"] = protocol
    keys["dport"] = port
    values = np.zeros(size, maps.POLICY_ENTRY)
    values["proxy_port_be"] = proxy_port
    values["flags"] = np.array(deny, np.uint8) * maps.POLICY_DENY | bits << maps.POLICY_PREFIX_SHIFT
    values["auth"] = auth
    values["precedence"] = precedence
    values["cookie"] = cookie
    values["flags"] |= _final(keys, values).astype(np.uint8) * np.uint8(maps.POLICY_FINAL)
    return Content(keys.tobytes(), values.tobytes())


def _final(keys: npt.NDArray[np.void], values: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Entries about one identity to which nothing said about any identity can add: the kernel asks once then."""
    strength = values["precedence"].astype(np.uint64) << np.uint64(8) | values["flags"] >> maps.POLICY_PREFIX_SHIFT
    auth = values["auth"] & _AUTH_TYPE
    settled = (values["flags"] & maps.POLICY_DENY | values["auth"] & AUTH_EXPLICIT) != 0
    found = np.zeros(len(keys), np.bool_)
    for egress in (0, 1):
        general = (keys["egress"] == egress) & (keys["identity"] == 0)
        special = (keys["egress"] == egress) & (keys["identity"] != 0)
        for protocol in np.unique(keys["protocol"][special]):
            mine = special & (keys["protocol"] == protocol)
            # Protocol 0 stands for each of them.
            rivals = general & ((keys["protocol"] == protocol) | (keys["protocol"] == 0) | (protocol == 0))
            if not rivals.any():
                found |= mine
                continue
            wins = strength >= strength[rivals].max()
            found |= mine & wins & (settled | (auth >= auth[rivals].max()))
    return found


def decode(keys: bytes, values: bytes) -> EndpointPolicy:
    """What `encode` was given, without entries that do nothing."""
    entries, settings = [], 0
    for key, value in zip(np.frombuffer(keys, maps.POLICY_KEY), np.frombuffer(values, maps.POLICY_ENTRY), strict=True):
        if key["identity"] == maps.POLICY_SETTINGS_IDENTITY:
            settings = int(value["cookie"])
            continue
        bits = int(key["prefix_length"]) - maps.POLICY_STATIC_BITS
        entries.append(
            PolicyEntry(
                egress=bool(key["egress"]),
                identity=int(key["identity"]),
                protocol=int(key["protocol"]),
                port=int(key["dport"]),
                port_bits=max(0, bits - _PROTOCOL_BITS),
                precedence=int(value["precedence"]),
                deny=bool(value["flags"] & maps.POLICY_DENY),
                proxy_port=int(value["proxy_port_be"]),
                auth=int(value["auth"]),
                cookie=int(value["cookie"]),
            )
        )
    ingress, egress = (bool(settings & bit) for bit in (maps.POLICY_ENFORCED_INGRESS, maps.POLICY_ENFORCED_EGRESS))
    kept = tuple(sorted(entry for entry in entries if (egress if entry.egress else ingress)))
    return EndpointPolicy(kept, ingress, egress, bool(settings & maps.POLICY_AUDIT))


def _settings(policy: EndpointPolicy) -> PolicyEntry:
    flags = (
        policy.enforced_ingress * maps.POLICY_ENFORCED_INGRESS
        | policy.enforced_egress * maps.POLICY_ENFORCED_EGRESS
        | policy.audit * maps.POLICY_AUDIT
    )
    return PolicyEntry(False, maps.POLICY_SETTINGS_IDENTITY, cookie=flags)


class PolicyMaps:
    """The policies of one node in the kernel."""

    def __init__(self, outer: Map, pin_dir: Path) -> None:
        """`outer` is flowscope_policies; it stays the caller's."""
        self._outer = outer
        self._pin_dir = pin_dir
        self._present: dict[int, Content] = {}
        """What this process has written; policies of an earlier one are written again once."""

    def replace(self, policies: Mapping[int, EndpointPolicy]) -> None:
        """Give endpoints their policies, each in one step; what is there already is left alone.

        Raises: PolicyTooLarge, BpfError; no endpoint has changed then.
        """
        contents = {number: encode(policy) for number, policy in policies.items() if policy.enforced}
        changed = {number: content for number, content in contents.items() if self._present.get(number) != content}
        made: dict[Content, Map] = {}
        try:
            for content in changed.values():
                if content not in made:
                    made[content] = _make(content)
            self._put({number: made[content].fd for number, content in changed.items()})
            for number, content in changed.items():
                self._present[number] = content
                self._pin(number, made[content])
        finally:
            for one in made.values():
                one.close()
        self.remove(number for number, policy in policies.items() if not policy.enforced)

    def remove(self, numbers: Iterable[int]) -> None:
        """Let everything pass at these endpoints; unknown ones are fine."""
        for number in numbers:
            self._present.pop(number, None)
            self._outer.delete(number.to_bytes(4, "little"))
            with contextlib.suppress(FileNotFoundError):
                self._pin_of(number).unlink()

    def read(self, number: int) -> EndpointPolicy:
        """What the kernel has for an endpoint."""
        try:
            table = Map.pinned(self._pin_of(number))
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise
            return EndpointPolicy()
        keys, values = table.dump()
        table.close()
        return decode(keys.tobytes(), values.tobytes())

    def numbers(self) -> set[int]:
        """Endpoints that have a policy."""
        names = (path.name.removeprefix(maps.POLICY_PIN) for path in self._pin_dir.glob(f"{maps.POLICY_PIN}*"))
        return {int(name) for name in names if name.isdigit()}

    def _put(self, fds: Mapping[int, int]) -> None:
        # The kernel waits for running programs after each call; a batch waits once for all of them.
        keys = np.array(list(fds), "<u4").view(np.uint8).reshape(-1, 4)
        values = np.array(list(fds.values()), "<u4").view(np.uint8).reshape(-1, 4)
        try:
            self._outer.update_many(keys, values)
        except BpfError as error:
            if error.errno not in _REFUSES_BATCHES:
                raise
            for number, fd in fds.items():
                self._outer.set_fd(number, fd)

    def _pin(self, number: int, table: Map) -> None:
        path = self._pin_of(number)
        fresh = path.with_name(path.name + _NEW)
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        table.pin(fresh)
        os.replace(fresh, path)

    def _pin_of(self, number: int) -> Path:
        return self._pin_dir / f"{maps.POLICY_PIN}{number}"


def _make(content: Content) -> Map:
    table = Map.create(
        MapType.LPM_TRIE,
        maps.POLICY_PIN,
        maps.POLICY_KEY.itemsize,
        maps.POLICY_ENTRY.itemsize,
        MAX_ENTRIES,
        _NO_PREALLOC,
    )
    try:
        table.update_many(
            np.frombuffer(content.keys, np.uint8).reshape(-1, maps.POLICY_KEY.itemsize),
            np.frombuffer(content.values, np.uint8).reshape(-1, maps.POLICY_ENTRY.itemsize),
        )
    except BpfError:
        table.close()
        raise
    return table
