"""Protocol buffers by hand: just the pieces that templates need.

In:        numbers and bytes.
Out:       encoded fields, and batches of fixed-width varints.
Elsewhere: everything that is not on a hot path uses the generated classes.
Source:    Protocol Buffers encoding guide. A varint may be padded with bytes that carry only zeros, so that a field
           keeps its width whatever its value; every decoder accepts that.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

VARINT: Final = 0
BYTES: Final = 2

GRPC_HEADER_SIZE: Final = 5
"""A compression flag and the length of the message, four bytes big endian."""


def varint(number: int) -> bytes:
    """The shortest form of a number; negative ones take ten bytes."""
    if 0 <= number < 0x80:
        return _SHORT[number]
    number &= 2**64 - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def padded_varint(number: int, width: int) -> bytes:
    """A number in exactly `width` bytes, which must suffice."""
    out = bytes(number >> 7 * i & 0x7F | 0x80 for i in range(width - 1))
    return out + bytes([number >> 7 * (width - 1)])


def tag(field: int, wire_type: int) -> bytes:
    """What precedes a field."""
    return varint(field << 3 | wire_type)


def message(field_tag: bytes, body: bytes) -> bytes:
    """A length-delimited field: a message, text or bytes."""
    return field_tag + varint(len(body)) + body


def number(field_tag: bytes, value: int) -> bytes:
    """A varint field; nothing when the value is 0, which is how proto3 says 0."""
    return field_tag + varint(value) if value else b""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and where it ends. Raises ValueError when it is cut off."""
    value = shift = 0
    try:
        while shift < 70:
            byte = data[at]
            at += 1
            if byte < 0x80:
                return value | byte << shift, at
            value |= (byte & 0x7F) << shift
            shift += 7
    except IndexError:
        pass
    raise ValueError("truncated varint")


def varints(numbers: npt.NDArray[np.uint64], width: int) -> U8:
    """Numbers as varints of `width` bytes, at most 8, which must suffice: (n, width)."""
    spread = numbers & np.uint64(0x7F)
    for i in range(1, width):
        spread |= (numbers << np.uint64(i)) & np.uint64(0x7F << 8 * i)
    spread |= np.uint64(int.from_bytes(b"\x80" * (width - 1), "little"))
    return spread.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :width]


_SHORT: Final = tuple(bytes([number]) for number in range(0x80))
