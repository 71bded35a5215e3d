"""The name of a flow: a UUID that is a function of node boot and sequence number, so that nobody stores it.

In:        rows and their nodes; UUID text.
Out:       UUID text one by one or as bytes for a batch, masks of rows with given UUIDs.
Elsewhere: encode.py patches the bytes into messages; the `uuid` filter uses `uuid_mask`.
Source:    RFC 9562, sections 4 (layout) and 5.8 (version 8: contents are the maker's own).

Layout of ours, most significant bit first: 48 bits of boot, version 8, 12 bits of boot, variant 10, 4 bits of boot,
58 bits of sequence. So flows of one node share the text up to the fourth dash and count up behind it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
import numpy.typing as npt

from model.row import Bit, Kind, Rows
from model.tables import Node, Tables
from proto.flow import flow_pb2

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

UUID_CHARS: Final = 36
TAIL_CHARS: Final = 17
"""Characters that differ between flows of one node: the last two groups and their dash."""
SEQ_BITS: Final = 58

_DASHES: Final = (8, 13, 18, 23)
_GROUPS: Final = ((0, 8), (9, 13), (14, 18), (19, 23), (24, 36))
SEQ_MASK: Final = (1 << SEQ_BITS) - 1
_VARIANT: Final = 0b10 << 62
_VERSION: Final = 8 << 12

_HEX_PAIRS: Final = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), "<u2")
"""Two ASCII digits by byte value."""
_NOT_HEX: Final = 255
_HEX_VALUES: Final = np.full(256, _NOT_HEX, np.uint8)
_HEX_VALUES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def flow_uuid(node: Node | None, seq: int) -> str:
    """UUID text of event `seq` of a node; None is a node about which nothing is known."""
    high, low = _boot_halves(node.boot if node else 0)
    return uuid_text(high, low | (seq & SEQ_MASK))


def parse_uuid(text: str) -> tuple[int, int] | None:
    """Boot and sequence number of a UUID of ours; None for any other text."""
    halves = parse_uuid_halves(text)
    if halves is None:
        return None
    return boot_and_seq(*halves)


def boot_and_seq(high: int, low: int) -> tuple[int, int] | None:
    """Boot and sequence number of the UUID with these halves, if it is one of ours (version 8)."""
    if high & 0xF000 != _VERSION or low >> 62 != 0b10:
        return None
    return (high & ~0xFFFF) | (high & 0x0FFF) << 4 | (low >> SEQ_BITS & 0xF), low & SEQ_MASK


def uuid_text(high: int, low: int) -> str:
    """Text of a 128-bit number in UUID form."""
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse_uuid_halves(text: str) -> tuple[int, int] | None:
    """The two halves of a UUID in exactly the form of `uuid_text`; None for any other text."""
    digits = text.replace("-", "")
    try:
        number = int(digits, 16)
    except ValueError:
        return None
    if number < 0 or number >> 128:
        return None
    halves = number >> 64, number & (2**64 - 1)
    return halves if uuid_text(*halves) == text else None


def uuid_halves(rows: Rows, tables: Tables) -> tuple[U64, U64]:
    """High and low half of each row's UUID. Both 0 where the row has none: foreign, and aux may have the text."""
    boots = np.array([node.boot if node else 0 for node in tables.nodes.values], np.uint64)
    boot_high = (boots & np.uint64(2**64 - 0x10000)) | np.uint64(_VERSION) | (boots >> 4 & np.uint64(0x0FFF))
    boot_low = np.uint64(_VARIANT) | (boots & np.uint64(0xF)) << SEQ_BITS
    nodes, seqs = rows["node"], rows["seq"]
    high, low = boot_high[nodes], boot_low[nodes] | (seqs & np.uint64(SEQ_MASK))
    foreign = (rows["bits"] & Bit.FOREIGN) != 0
    if foreign.any():
        stored = foreign & ((rows["bits"] & Bit.HAS_ETHERNET) == 0)
        high[foreign] = low[foreign] = 0
        high[stored] = _stored_high(rows["smac"][stored], rows["dmac"][stored])
        low[stored] = seqs[stored]
    return high, low


def store_foreign_uuids(rows: Rows, where: npt.NDArray[np.bool_], high: U64, low: U64) -> None:
    """Keep other servers' UUIDs, one per row, in the rows named; these have no Ethernet layer (Bit.FOREIGN)."""
    digits = high[where].astype(">u8").view(np.uint8).reshape(-1, 8)
    rows["seq"][where] = low[where]
    rows["smac"][where] = digits[:, :6]
    rows["dmac"][where, :2] = digits[:, 6:]


def uuid_bytes(high: U64, low: U64) -> U8:
    """ASCII text of UUIDs: (n, 36)."""
    text = np.empty((len(high), UUID_CHARS), np.uint8)
    digits = np.concatenate([_hex_digits(high), _hex_digits(low)], axis=1)
    start = 0
    for first, end in _GROUPS:
        text[:, first:end] = digits[:, start : start + end - first]
        start += end - first
    text[:, list(_DASHES)] = ord("-")
    return text


def uuid_tail_bytes(low: U64) -> U8:
    """ASCII text of the last two groups of UUIDs: (n, 17)."""
    text = np.empty((len(low), TAIL_CHARS), np.uint8)
    digits = _hex_digits(low)
    text[:, :4] = digits[:, :4]
    text[:, 4] = ord("-")
    text[:, 5:] = digits[:, 4:]
    return text


def parse_uuid_bytes(text: U8) -> tuple[U64, U64, npt.NDArray[np.bool_]]:
    """Halves of UUIDs given as ASCII (n, 36), and which of them are in the form of `uuid_text`; others are 0."""
    digits = np.concatenate([text[:, first:end] for first, end in _GROUPS], axis=1)
    values = _HEX_VALUES[digits]
    good = (values != _NOT_HEX).all(axis=1) & (text[:, list(_DASHES)] == ord("-")).all(axis=1)
    packed = (values[:, 0::2] << 4 | values[:, 1::2]) * good[:, None].astype(np.uint8)
    halves = np.ascontiguousarray(packed).view(">u8").astype(np.uint64)
    return halves[:, 0], halves[:, 1], good


def uuid_mask(rows: Rows, tables: Tables, wanted: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which flows have one of these UUID texts. Text is compared exactly; the empty text finds flows without UUID."""
    result: npt.NDArray[np.bool_] = np.zeros(len(rows), np.bool_)
    flows = rows["kind"] == Kind.FLOW
    high, low = uuid_halves(rows, tables)
    in_row = (high | low) != 0
    for text in wanted:
        halves = parse_uuid_halves(text)
        if halves is not None:
            result |= in_row & (high == np.uint64(halves[0])) & (low == np.uint64(halves[1]))
    elsewhere = np.flatnonzero(flows & ~in_row)
    if len(elsewhere):
        auxes, where = np.unique(rows["aux"][elsewhere], return_inverse=True)
        texts = (flow_pb2.Flow.FromString(tables.aux[index] or b"").uuid for index in auxes.tolist())
        result[elsewhere] = np.fromiter((text in wanted for text in texts), np.bool_, len(auxes))[where]
    result &= flows
    return result


def hex_digits(octets: U8) -> U8:
    """ASCII hex digits of bytes: (n, k) gives (n, 2 k)."""
    return _HEX_PAIRS[octets].view(np.uint8)


def _boot_halves(boot: int) -> tuple[int, int]:
    high = (boot & ~0xFFFF) | _VERSION | (boot >> 4 & 0x0FFF)
    return high, _VARIANT | (boot & 0xF) << SEQ_BITS


def _stored_high(smac: U8, dmac: U8) -> U64:
    digits = np.concatenate([smac, dmac[:, :2]], axis=1)
    return digits.view(">u8").ravel().astype(np.uint64)


def _hex_digits(numbers: U64) -> U8:
    return hex_digits(numbers.astype(">u8").view(np.uint8).reshape(-1, 8))
