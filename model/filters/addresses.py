"""Addresses and ports: source_ip, destination_ip, source_ip_xlated, source_port, destination_port.

In:        text of addresses, prefixes, ports and (where they are allowed) port ranges.
Out:       terms (scan.py).
Elsewhere: row.py says how rows keep addresses; gotext.py words the refusals.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from model.address_text import address_text, parse_address_text
from model.filters.errors import InvalidFilter
from model.filters.gotext import address_error, parse_uint, prefix_error
from model.filters.scan import Mask, Scan
from model.row import IPV4, IPV6, L4, Bit
from model.text.quote import quote
from proto.flow import flow_pb2

Interval = tuple[int, int]
"""First and last number."""

Numbers = npt.NDArray[np.uint64]


class AddressSet:
    """Addresses by their exact text, and prefixes by containment."""

    def __init__(self, field: str, entries: Sequence[str]) -> None:
        """Raises: InvalidFilter for what is neither an address nor a prefix."""
        self._texts: set[str] = set()
        numbers: dict[int, list[Interval]] = {IPV4: [], IPV6: []}
        networks: dict[int, list[Interval]] = {IPV4: [], IPV6: []}
        for entry in entries:
            if "/" in entry:
                if error := prefix_error(entry):
                    raise InvalidFilter(field, f"invalid IP prefix {quote(entry)} in filter: {error}")
                network = ipaddress.ip_network(entry, strict=False)
                version = IPV4 if network.version == 4 else IPV6
                networks[version].append((int(network.network_address), int(network.broadcast_address)))
            else:
                if error := address_error(entry):
                    raise InvalidFilter(field, f"invalid IP address {quote(entry)} in filter: {error}")
                self._texts.add(entry)
                address = parse_address_text(entry)
                # Flows are compared by their text, so another spelling of an address finds nothing.
                if address is not None and address_text(address[1], address[2], address[0]) == entry:
                    number = address[1] << 64 | address[2]
                    numbers[address[0]].append((number, number))
        self._networks = {version: merged(found) for version, found in networks.items()}
        four = merged(numbers[IPV4] + networks[IPV4])
        # An IPv4-mapped address in an IPv6 packet is shown as the IPv4 address, so it is found as one.
        six = without(merged(numbers[IPV6] + networks[IPV6]), MAPPED)
        mapped = [(MAPPED[0] + first, MAPPED[0] + last) for first, last in four]
        self.intervals = {IPV4: four, IPV6: merged(six + mapped)}
        """The numbers in rows of that ip_version."""

    def has_text(self, text: str) -> bool:
        """Whether the address of a flow, given as its text, is in the set. The empty text never is."""
        if text in self._texts:
            return bool(text)
        if not (self._networks[IPV4] or self._networks[IPV6]):
            return False
        address = parse_address_text(text)
        if address is None:
            return False
        version, high, low = address
        return any(first <= high << 64 | low <= last for first, last in self._networks[version])


MAPPED: Final = (0xFFFF << 32, (0x10000 << 32) - 1)
"""The IPv4-mapped addresses (RFC 4291, section 2.5.5.2)."""


def without(intervals: Sequence[Interval], hole: Interval) -> list[Interval]:
    """The same numbers but those in `hole`."""
    below = [(first, min(last, hole[0] - 1)) for first, last in intervals if first < hole[0]]
    above = [(max(first, hole[1] + 1), last) for first, last in intervals if last > hole[1]]
    return below + above


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """The same numbers as sorted intervals that neither overlap nor touch."""
    result: list[Interval] = []
    for first, last in sorted(intervals):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], last))
        else:
            result.append((first, last))
    return result


class AddressTerm:
    """source_ip or destination_ip."""

    cost = 3

    def __init__(self, side: str, addresses: AddressSet) -> None:
        """Shape: `side` is `src` or `dst`."""
        self._side = side
        self._addresses = addresses
        self._four = IntervalTest(addresses.intervals[IPV4])
        self._six = WideIntervalTest(addresses.intervals[IPV6])

    def test(self, scan: Scan) -> Mask:
        version = scan.column("ip_version")
        low = scan.column(f"{self._side}_ip_lo")
        hits = np.zeros(len(scan), np.bool_)
        if self._addresses.intervals[IPV4]:
            hits |= (version == IPV4) & self._four.test(low)
        if self._addresses.intervals[IPV6] and len(rows := np.flatnonzero(version == IPV6)):
            high = scan.column(f"{self._side}_ip_hi")
            hits[rows] = self._six.test(high[rows], low[rows])
            if self._covers_zero():
                hits &= ~(self._absent(scan, low) & (high == 0))
        elif self._covers_zero():
            hits &= ~self._absent(scan, low)
        return hits

    def _covers_zero(self) -> bool:
        return any(found and found[0][0] == 0 for found in self._addresses.intervals.values())

    def _absent(self, scan: Scan, low: Numbers) -> Mask:
        """Addresses of 0 that mean "none"; a flow of our own that has 0.0.0.0 really had it."""
        absent: Mask = (low == 0) & scan.bits(Bit.FOREIGN)
        return absent

    def matches(self, flow: flow_pb2.Flow) -> bool:
        return self._addresses.has_text(flow.IP.source if self._side == "src" else flow.IP.destination)


FEW: Final = 4
"""Up to so many intervals are compared one by one; a search among more of them is faster than that."""


class IntervalTest:
    """Which of many 64-bit numbers lie in one of some intervals."""

    def __init__(self, intervals: Sequence[Interval]) -> None:
        self._firsts = np.array([first for first, _ in intervals], np.uint64)
        self._lasts = np.array([last for _, last in intervals], np.uint64)

    def test(self, numbers: Numbers) -> Mask:
        """Answer per number; the intervals are sorted and disjoint."""
        if len(self._firsts) <= FEW:
            hits = np.zeros(len(numbers), np.bool_)
            for first, last in zip(self._firsts, self._lasts, strict=True):
                hits |= (numbers >= first) & (numbers <= last)
            return hits
        below = np.searchsorted(self._firsts, numbers, side="right")
        found: Mask = (below > 0) & (numbers <= self._lasts[below - 1])
        return found


class WideIntervalTest:
    """The same for 128-bit numbers in two halves."""

    def __init__(self, intervals: Sequence[Interval]) -> None:
        self._halves = [tuple(np.uint64(half) for half in (*_halves(a), *_halves(b))) for a, b in intervals[:FEW]]
        self._firsts = np.array([first.to_bytes(16, "big") for first, _ in intervals], "S16")
        self._lasts = np.array([last.to_bytes(16, "big") for _, last in intervals], "S16")

    def test(self, high: Numbers, low: Numbers) -> Mask:
        """Answer per number; the intervals are sorted and disjoint."""
        if len(self._firsts) <= FEW:
            hits = np.zeros(len(high), np.bool_)
            for first_high, first_low, last_high, last_low in self._halves:
                after = (high > first_high) | ((high == first_high) & (low >= first_low))
                hits |= after & ((high < last_high) | ((high == last_high) & (low <= last_low)))
            return hits
        # Big-endian bytes sort like the numbers. Zeros at the end, which numpy strips, change no comparison.
        keys = np.stack((high, low), axis=1).astype(">u8").view("S16").reshape(-1)
        below = np.searchsorted(self._firsts, keys, side="right")
        found: Mask = (below > 0) & (keys <= self._lasts[below - 1])
        return found


def _halves(number: int) -> tuple[int, int]:
    return number >> 64, number & ((1 << 64) - 1)


PORT_COUNT: Final = 1 << 16
PORT_RANGE: Final = re.compile(r"([0-9]{1,5})-([0-9]{1,5})", re.ASCII)
WITH_PORTS: Final = (L4.TCP, L4.UDP, L4.SCTP)


class PortTerm:
    """source_port or destination_port, of the protocols that have ports."""

    cost = 2

    def __init__(self, side: str, entries: Sequence[str], *, ranges: bool) -> None:
        """Shape: `side` is `source` or `destination`. With `ranges`, an entry may be `8000-8100` (both included).

        Raises: InvalidFilter for what is no port.
        """
        self._side = side
        self._column = {"source": "sport", "destination": "dport"}[side]
        self._answers = np.zeros(PORT_COUNT, np.bool_)
        for entry in entries:
            first, last = self._parse(entry, ranges)
            self._answers[first : last + 1] = True
        self._protocols = np.zeros(256, np.bool_)
        self._protocols[list(WITH_PORTS)] = True

    def _parse(self, entry: str, ranges: bool) -> Interval:
        if ranges and (parts := PORT_RANGE.fullmatch(entry)):
            first, last = int(parts[1]), int(parts[2])
            if first <= last < PORT_COUNT:
                return first, last
        try:
            port = parse_uint(entry, 16)
        except ValueError as error:
            text = f"invalid {self._side} port filter: invalid port {quote(entry)}: {error}"
            raise InvalidFilter(f"{self._side}_port", text) from None
        return port, port

    def test(self, scan: Scan) -> Mask:
        return self._answers.take(scan.column(self._column)) & self._protocols.take(scan.column("l4"))

    def matches(self, flow: flow_pb2.Flow) -> bool:
        name = flow.l4.WhichOneof("protocol")
        if name not in {protocol.name for protocol in WITH_PORTS}:
            return False
        layer: flow_pb2.TCP = getattr(flow.l4, name)
        port = layer.source_port if self._side == "source" else layer.destination_port
        return bool(self._answers[port % PORT_COUNT])
