"""Messages as JSON, in the form of Hubble's exporter and `-o json`.

In:        any message of our API.
Out:       one line of JSON: proto field names in order of declaration, 64-bit integers as text, `<>&` escaped.
Elsewhere: fromjson.py reads it back; rows.py writes rows in the same form without building messages.
Source:    the ProtoJSON format as Go writes it (protobuf.dev, "ProtoJSON format").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor

from model.text.style import BEYOND_ASCII
from model.text.times import json_time

if TYPE_CHECKING:
    from google.protobuf.message import Message

Write = Callable[[Any], str]

_TIME: Final = json_time()

ESCAPED: Final = {code: f"\\u{code:04x}" for code in (*b"<>&", *BEYOND_ASCII)}
"""Beside what JSON itself wants: what Go escapes for HTML, and what terminals obey."""


def json_text(text: str) -> str:
    """A text in quotes. JSON in logs often ends up in HTML, so Go escapes its special characters too."""
    quoted = encode_basestring(text)
    if quoted.isascii() and "<" not in quoted and ">" not in quoted and "&" not in quoted:
        return quoted
    return quoted.translate(ESCAPED)


def to_json(message: Message) -> str:
    """One message as one line without line end."""
    return _writer(message.DESCRIPTOR)(message)


def json_number(value: float) -> str:
    """A double in its shortest form; exponents from 1e21 and below 1e-6, as Go and ECMAScript have them."""
    if math.isnan(value) or math.isinf(value):
        return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'
    from decimal import Decimal

    exact = Decimal(repr(value)).normalize()
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return format(exact, "f")
    sign, digits, power = exact.as_tuple()
    assert isinstance(power, int)
    text = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return f"{'-' if sign else ''}{text}e{power + len(digits) - 1:+}"


def _timestamp(message: Any) -> str:
    return f'"{_TIME.one(message.seconds, message.nanos)}"'


def _duration(message: Any) -> str:
    sign = "-" if message.seconds < 0 or message.nanos < 0 else ""
    digits = f".{abs(message.nanos):09}" if message.nanos else ""
    while digits.endswith("000"):
        digits = digits[:-3]
    return f'"{sign}{abs(message.seconds)}{digits}s"'


def _field_mask(message: Any) -> str:
    # Printed as they are: the official form cannot hold the capitals of `IP` and `Type`.
    return json_text(",".join(message.paths))


def _any(message: Any) -> str:
    import base64

    value = base64.b64encode(message.value).decode("ascii")
    return f'{{"@type":{json_text(message.type_url)},"value":"{value}"}}'


def _wrapped(message_type: Any) -> Write:
    write = _scalar(message_type.fields_by_name["value"])
    return lambda message: write(message.value)


def _enum(field: FieldDescriptor) -> Write:
    values: Any = field.enum_type
    names = {number: f'"{value.name}"' for number, value in values.values_by_number.items()}
    return lambda number: names.get(number) or str(number)


def _bytes(value: bytes) -> str:
    import base64

    return '"' + base64.b64encode(value).decode("ascii") + '"'


def _as_text(value: int) -> str:
    return f'"{value}"'


def _bool(value: bool) -> str:
    return "true" if value else "false"


_F = FieldDescriptor

_SCALARS: Final[dict[int, Write]] = {
    _F.CPPTYPE_STRING: json_text,
    _F.CPPTYPE_BOOL: _bool,
    _F.CPPTYPE_INT32: str,
    _F.CPPTYPE_UINT32: str,
    _F.CPPTYPE_INT64: _as_text,
    _F.CPPTYPE_UINT64: _as_text,
    _F.CPPTYPE_DOUBLE: json_number,
    _F.CPPTYPE_FLOAT: json_number,
}

_WELL_KNOWN: Final[dict[str, Callable[[Any], Write]]] = {
    "google.protobuf.Timestamp": lambda _: _timestamp,
    "google.protobuf.Duration": lambda _: _duration,
    "google.protobuf.FieldMask": lambda _: _field_mask,
    "google.protobuf.Any": lambda _: _any,
    **{
        f"google.protobuf.{kind}Value": _wrapped
        for kind in ("Bool", "Int32", "UInt32", "Int64", "UInt64", "Double", "Float", "String", "Bytes")
    },
}


def _scalar(field: FieldDescriptor) -> Write:
    if field.cpp_type == _F.CPPTYPE_MESSAGE:
        return _writer(field.message_type)
    if field.cpp_type == _F.CPPTYPE_ENUM:
        return _enum(field)
    if field.type == _F.TYPE_BYTES:
        return _bytes
    return _SCALARS[field.cpp_type]


_WRITERS: Final[dict[str, Write]] = {}


def _writer(message_type: Any) -> Write:
    """The function that writes messages of a type, made once."""
    known = _WRITERS.get(message_type.full_name)
    if known is None:
        well_known = _WELL_KNOWN.get(message_type.full_name)
        known = _fields_writer(message_type) if well_known is None else well_known(message_type)
        _WRITERS[message_type.full_name] = known
    return known


def _fields_writer(message_type: Any) -> Write:
    order = {field.number: index for index, field in enumerate(message_type.fields)}
    plan: dict[int, tuple[int, str, Write]] = {}

    def plan_field(field: FieldDescriptor) -> tuple[int, str, Write]:
        write = _scalar(field)
        if field.is_repeated:
            one = write
            write = lambda values: "[" + ",".join(map(one, values)) + "]"  # noqa: E731
        made = plan[field.number] = (order[field.number], f'"{field.name}":', write)
        return made

    def fields(message: Any) -> list[tuple[int, str]]:
        parts = []
        for field, value in message.ListFields():
            index, key, write_value = plan.get(field.number) or plan_field(field)
            parts.append((index, key + write_value(value)))
        # ListFields goes by number; people and scripts know the order of declaration.
        parts.sort()
        return parts

    _FIELDS[message_type.full_name] = fields
    return lambda message: "{" + ",".join([text for _, text in fields(message)]) + "}"


_FIELDS: Final[dict[str, Callable[[Any], list[tuple[int, str]]]]] = {}


def fields_json(message: Message) -> list[tuple[int, str]]:
    """The fields that a message has, in order: index of declaration, `"name":value`."""
    _writer(message.DESCRIPTOR)
    return _FIELDS[message.DESCRIPTOR.full_name](message)
