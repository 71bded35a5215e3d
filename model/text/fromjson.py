"""Messages from JSON: export files, `-o json` of another run, raw filters.

In:        JSON text, also hand-written and hostile.
Out:       a message, or ValueError that says what is wrong.
Elsewhere: tojson.py writes the form that this reads; lines.py reads whole files of regular lines much faster.
Source:    the ProtoJSON format (protobuf.dev), as strict as Go's reader: no unknown or repeated names, names of fields
           in either spelling, numbers as numbers or text, enums by name or number, null as absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor

from model.text.times import MAX_SECONDS, MIN_SECONDS, parse_rfc3339

if TYPE_CHECKING:
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")

Object = tuple[tuple[str, Any], ...]
"""A JSON object as its pairs: unlike a dict it still shows names that were given twice."""

Read = Callable[[Any, bool], Any]
"""(JSON value, discard unknown) -> value of a field. Raises: ValueError, or _Skip."""


class _SkipError(Exception):
    """A value that is dropped: an enum name from the future."""


def from_json(text: str | bytes, message_class: type[M], discard_unknown: bool = False) -> M:
    """Read one message.

    discard_unknown  whether names of fields and enum values that we do not know are dropped.
    Raises: ValueError.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    return _from_value(_DECODER.decode(text), message_class, discard_unknown)


def many_from_json(text: str, message_class: type[M]) -> list[M]:
    """Messages written one behind the other, with or without blanks between them.

    Raises: ValueError.
    """
    messages = []
    at = _BLANKS.match(text, 0).end()  # type: ignore[union-attr]
    while at < len(text):
        value, at = _DECODER.raw_decode(text, at)
        messages.append(_from_value(value, message_class, False))
        at = _BLANKS.match(text, at).end()  # type: ignore[union-attr]
    return messages


_BLANKS: Final = re.compile(r"[ \t\r\n]*")


def _from_value(value: Any, message_class: type[M], discard_unknown: bool) -> M:
    message = message_class()
    try:
        _fill(message, value, discard_unknown)
    except (TypeError, UnicodeError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    return message


class _Float(str):
    """A JSON number with a point or an exponent, as written."""

    __slots__ = ()


def _no_constant(name: str) -> Any:
    raise ValueError(f"invalid value {name}")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=tuple, parse_float=_Float, parse_constant=_no_constant)

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)


def _integer(low: int, high: int) -> Read:
    def read(value: Any, _discard: bool) -> int:
        if type(value) is not int:
            if not isinstance(value, str) or _NUMBER.fullmatch(value) is None:
                raise ValueError(f"invalid value {_shown(value)}, expected an integer")
            value = _exact(value)
        if not low <= value <= high:
            raise ValueError(f"{value} is out of range")
        return int(value)

    return read


def _exact(text: str) -> int:
    if text.lstrip("-").isdecimal():
        return int(text)
    from decimal import Decimal

    number = Decimal(text)
    if number.adjusted() > 30 or number != number.to_integral_value():
        raise ValueError(f"invalid value {text}, expected an integer")
    return int(number)


def _double(value: Any, _discard: bool) -> float:
    if type(value) is int or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        return float(value)
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    raise ValueError(f"invalid value {_shown(value)}, expected a number")


def _bool(value: Any, _discard: bool) -> bool:
    if value is True or value is False:
        return value
    raise ValueError(f"invalid value {_shown(value)}, expected true or false")


def _text(value: Any, _discard: bool) -> str:
    if type(value) is str:
        return value
    raise ValueError(f"invalid value {_shown(value)}, expected text")


def _bytes(value: Any, _discard: bool) -> bytes:
    import base64

    text = _text(value, False).replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "{...}"
    if isinstance(value, _Float):
        return str(value)
    text = json.dumps(value) if not isinstance(value, list) else "[...]"
    return text if len(text) <= 60 else text[:57] + "..."


def _enum(field: FieldDescriptor) -> Read:
    values: Any = field.enum_type
    numbers = {name: value.number for name, value in values.values_by_name.items()}
    number = _integer(-(1 << 31), (1 << 31) - 1)

    def read(value: Any, discard: bool) -> int:
        if type(value) is str:
            known = numbers.get(value)
            if known is None:
                if discard:
                    raise _SkipError
                raise ValueError(f"unknown value {_shown(value)} of {field.name}")
            return int(known)
        if type(value) is not int and not isinstance(value, _Float):
            raise ValueError(f"invalid value {_shown(value)} of {field.name}")
        exact: int = number(value, False)
        return exact

    return read


_INT32: Final = _integer(-(1 << 31), (1 << 31) - 1)
_INT64: Final = _integer(-(1 << 63), (1 << 63) - 1)

_F = FieldDescriptor

_SCALARS: Final[dict[int, Read]] = {
    _F.CPPTYPE_STRING: _text,
    _F.CPPTYPE_BOOL: _bool,
    _F.CPPTYPE_INT32: _INT32,
    _F.CPPTYPE_UINT32: _integer(0, (1 << 32) - 1),
    _F.CPPTYPE_INT64: _INT64,
    _F.CPPTYPE_UINT64: _integer(0, (1 << 64) - 1),
    _F.CPPTYPE_DOUBLE: _double,
    _F.CPPTYPE_FLOAT: _double,
}


def _scalar(field: FieldDescriptor) -> Read:
    if field.cpp_type == _F.CPPTYPE_ENUM:
        return _enum(field)
    if field.type == _F.TYPE_BYTES:
        return _bytes
    return _SCALARS[field.cpp_type]


@lru_cache(maxsize=16)
def _timestamp(text: str) -> tuple[int, int]:
    """Seconds and nanoseconds; remembered, because a response repeats the time of its flow."""
    seconds, nanos = parse_rfc3339(text)
    point = max(text.rfind("."), text.rfind(","))
    if point >= 0 and len(text[point + 1 :].rstrip("Z").split("+")[0].split("-")[0]) > 9:
        raise ValueError(f"{text!r} is finer than nanoseconds")
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ValueError(f"{text!r} is not within the years 1 to 9999")
    return seconds, nanos


def _fill_timestamp(message: Any, value: Any, _discard: bool) -> None:
    message.seconds, message.nanos = _timestamp(_text(value, False))


def _fill_any(_message: Any, _value: Any, _discard: bool) -> None:
    raise ValueError("extensions cannot be read from JSON")


Fill = Callable[[Any, Any, bool], None]

_WRAPPERS: Final = ("Bool", "Int32", "UInt32", "Int64", "UInt64", "Double", "Float", "String", "Bytes")
_FILLS: Final[dict[str, Fill]] = {
    "google.protobuf.Timestamp": _fill_timestamp,
    "google.protobuf.Any": _fill_any,
}


def _fill(message: Any, value: Any, discard: bool) -> None:
    _filler(message.DESCRIPTOR)(message, value, discard)


def _filler(message_type: Any) -> Fill:
    known = _FILLS.get(message_type.full_name)
    if known is None:
        package, _, name = message_type.full_name.rpartition(".")
        if package == "google.protobuf" and name.removesuffix("Value") in _WRAPPERS:
            known = _wrapper_filler(message_type)
        else:
            known = _fields_filler(message_type)
        _FILLS[message_type.full_name] = known
    return known


def _wrapper_filler(message_type: Any) -> Fill:
    read = _scalar(message_type.fields_by_name["value"])

    def fill(message: Any, value: Any, discard: bool) -> None:
        message.value = read(value, discard)

    return fill


def _fields_filler(message_type: Any) -> Fill:
    # One flat function: a line has some forty values, and calls are what they cost.
    plan: dict[str, tuple[int, str, str, Read | None, Fill | None]] = {}
    for field in message_type.fields:
        oneof = field.containing_oneof
        entry = (field.number, "" if oneof is None else oneof.name, field.name, *_reader(field))
        plan[field.json_name] = plan[field.name] = entry

    def fill(message: Any, value: Any, discard: bool) -> None:
        if type(value) is not tuple:
            raise ValueError(f"invalid value {_shown(value)}, expected an object for {message_type.name}")
        seen: set[int | str] = set()
        for key, item in value:
            entry = plan.get(key)
            if entry is None:
                if discard:
                    continue
                raise ValueError(f"unknown field {_shown(key)}")
            number, oneof, name, read, fill_field = entry
            if number in seen:
                raise ValueError(f"duplicate field {_shown(key)}")
            seen.add(number)
            if item is None:
                continue
            if oneof:
                if oneof in seen:
                    raise ValueError(f"{_shown(key)} besides another of {oneof}")
                seen.add(oneof)
            if read is _text and type(item) is str:
                setattr(message, name, item)
            elif fill_field is not None:
                fill_field(message, item, discard)
            elif read is not None:
                try:
                    setattr(message, name, read(item, discard))
                except _SkipError:
                    continue

    return fill


def _reader(field: FieldDescriptor) -> tuple[Read | None, Fill | None]:
    """How a field's value is read: a plain one, or what fills anything else."""
    if field.is_repeated:
        return None, _messages_filler(field) if field.cpp_type == _F.CPPTYPE_MESSAGE else _list_filler(field)
    if field.cpp_type == _F.CPPTYPE_MESSAGE:
        return None, _message_filler(field)
    return _scalar(field), None


def _message_filler(field: FieldDescriptor) -> Fill:
    name, inner_type = field.name, field.message_type
    filler: Fill | None = None

    def fill(message: Any, value: Any, discard: bool) -> None:
        nonlocal filler
        if filler is None:
            filler = _filler(inner_type)
        inner = getattr(message, name)
        # Presence is news, even of an empty message.
        inner.SetInParent()
        filler(inner, value, discard)

    return fill


def _messages_filler(field: FieldDescriptor) -> Fill:
    name, inner_type = field.name, field.message_type

    def fill(message: Any, value: Any, discard: bool) -> None:
        if type(value) is not list:
            raise ValueError(f"invalid value {_shown(value)} of {name}, expected a list")
        filler, add = _filler(inner_type), getattr(message, name).add
        for item in value:
            filler(add(), item, discard)

    return fill


def _list_filler(field: FieldDescriptor) -> Fill:
    name, read = field.name, _scalar(field)

    def fill(message: Any, value: Any, discard: bool) -> None:
        if type(value) is not list:
            raise ValueError(f"invalid value {_shown(value)} of {name}, expected a list")
        if read is _text and set(map(type, value)) <= {str}:
            getattr(message, name).extend(value)
            return
        append = getattr(message, name).append
        for item in value:
            try:
                append(read(item, discard))
            except _SkipError:
                continue

    return fill
