"""The standard functions and operators of CEL that a filter may call.

In:        a name and the types of the arguments.
Out:       the type of the result and a Python function of the values.
Elsewhere: compiler.py handles what is no plain function: fields, `&&`, `||`, `?:`, macros.
Source:    CEL language definition, "List of Standard Definitions".

Values: int and uint are Python ints (their type is known before anything runs), timestamps are nanoseconds since the
epoch and durations nanoseconds, so nothing of a flow's time is lost; messages are protobuf messages, null is None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf import duration_pb2, timestamp_pb2

from model.filters.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    UINT,
    Type,
    comparable,
    fits,
    joined,
    list_of,
    map_of,
)
from model.filters.patterns import Search, regexp


class CelRuntimeError(Exception):
    """An expression has no value for this flow: division by zero, overflow, no such key."""


Function = Callable[..., Any]


class Overload(NamedTuple):
    """One form of a function."""

    args: tuple[Type, ...]
    result: Type
    call: Function


INTS: Final = range(-(1 << 63), 1 << 63)
UINTS: Final = range(1 << 64)
SECOND_NS: Final = 1_000_000_000


def resolve(name: str, args: Sequence[Type]) -> tuple[Type, Function] | None:
    """Result and function for arguments of these types; None when there is no such form."""
    generic = GENERIC.get(name)
    if generic is not None and (resolved := generic(args)) is not None:
        return resolved
    found = [one for one in OVERLOADS.get(name, ()) if len(one.args) == len(args) and all(map(fits, args, one.args))]
    if not found:
        return None
    if len(found) == 1 or DYN not in args:
        return found[0].result, found[0].call
    return joined([one.result for one in found]), _choosing(found)


CLASSES: Final[dict[str, type]] = {
    "bool": bool,
    "int": int,
    "uint": int,
    "double": float,
    "string": str,
    "bytes": bytes,
    "timestamp": int,
    "duration": int,
    "list": list,
    "map": dict,
}


def _choosing(overloads: Sequence[Overload]) -> Function:
    """Where a type is not known before: the first form that takes the values."""

    def call(*values: Any) -> Any:
        for overload in overloads:
            if all(_is(value, kind) for value, kind in zip(values, overload.args, strict=True)):
                return overload.call(*values)
        raise CelRuntimeError("no such overload")

    return call


def _is(value: Any, kind: Type) -> bool:
    return isinstance(value, CLASSES[kind.name]) and (kind.name == "bool") == isinstance(value, bool)


def is_function(name: str) -> bool:
    """Whether a function or method of that name exists."""
    return name in OVERLOADS or name in GENERIC


# Arithmetic. CEL numbers do not wrap around: leaving the range is an error of the flow at hand.


def _in_range(kind: range, call: Function) -> Function:
    def checked(*values: int) -> int:
        result: int = call(*values)
        if result not in kind:
            raise CelRuntimeError("number out of range")
        return result

    return checked


def _quotient(one: int, other: int) -> int:
    if other == 0:
        raise CelRuntimeError("division by zero")
    # Toward zero, unlike Python.
    return -(-one // other) if (one < 0) != (other < 0) else one // other


def _remainder(one: int, other: int) -> int:
    if other == 0:
        raise CelRuntimeError("modulus by zero")
    return one - other * _quotient(one, other)


def _double_quotient(one: float, other: float) -> float:
    if other != 0:
        return one / other
    return math.nan if one == 0 or math.isnan(one) else math.copysign(math.inf, one) * math.copysign(1, other)


# Conversions.


def _integer(kind: range) -> Function:
    def convert(value: float | str) -> int:
        if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]{1,20}", value, re.ASCII):
            raise CelRuntimeError("not a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise CelRuntimeError("number out of range")
        number = int(value)
        if number not in kind:
            raise CelRuntimeError("number out of range")
        return number

    return convert


def _double(value: int | str) -> float:
    try:
        return float(value)
    except ValueError:
        raise CelRuntimeError("not a number") from None


def _text_of_double(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


def _text_of_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise CelRuntimeError("invalid UTF-8 in bytes") from None


def _text_of_timestamp(ns: int) -> str:
    moment = timestamp_pb2.Timestamp()
    moment.FromNanoseconds(ns)
    return moment.ToJsonString()


def _text_of_duration(ns: int) -> str:
    span = duration_pb2.Duration()
    span.FromNanoseconds(ns)
    return span.ToJsonString()


def _bool(text: str) -> bool:
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise CelRuntimeError("not a bool")


@lru_cache(maxsize=256)
def _timestamp(text: str) -> int:
    moment = timestamp_pb2.Timestamp()
    try:
        moment.FromJsonString(text)
    except ValueError:
        raise CelRuntimeError("not a timestamp") from None
    return moment.ToNanoseconds()


DURATION_UNITS: Final = {"ns": 1, "us": 1000, "µs": 1000, "ms": 1_000_000, "s": SECOND_NS, "m": 60 * SECOND_NS}
DURATION_UNITS["h"] = 3600 * SECOND_NS
DURATION_PART: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?(ns|us|µs|ms|s|m|h)")


@lru_cache(maxsize=256)
def _duration(text: str) -> int:
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total = position = 0
    while position < len(rest) or not rest:
        part = DURATION_PART.match(rest, position)
        if part is None:
            raise CelRuntimeError("not a duration")
        unit = DURATION_UNITS[part[3]]
        total += int(part[1]) * unit + (int(part[2]) * unit // 10 ** len(part[2]) if part[2] else 0)
        position = part.end()
    return sign * total


# Strings.


@lru_cache(maxsize=64)
def _search(pattern: str) -> Search:
    try:
        return regexp(pattern)
    except ValueError as error:
        raise CelRuntimeError(str(error)) from None


def _matches(text: str, pattern: str) -> bool:
    return _search(pattern)(text)


# Parts of times.


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    offset = re.fullmatch(r"([+-]?)([0-9]{2}):([0-9]{2})", name, re.ASCII)
    if offset:
        span = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        if span >= timedelta(days=1):
            raise CelRuntimeError("unknown time zone")
        return timezone(-span if offset[1] == "-" else span)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CelRuntimeError("unknown time zone") from None


def _part(read: Callable[[datetime], int]) -> Function:
    def part(ns: int, zone: str = "UTC") -> int:
        try:
            # Whole microseconds: a float of seconds would not do.
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)
            return read(moment if zone == "UTC" else moment.astimezone(_zone(zone)))
        except OverflowError:
            raise CelRuntimeError("timestamp out of range") from None

    return part


TIME_PARTS: Final[dict[str, Callable[[datetime], int]]] = {
    "getFullYear": lambda moment: moment.year,
    "getMonth": lambda moment: moment.month - 1,
    "getDate": lambda moment: moment.day,
    "getDayOfMonth": lambda moment: moment.day - 1,
    "getDayOfWeek": lambda moment: moment.isoweekday() % 7,
    "getDayOfYear": lambda moment: moment.timetuple().tm_yday - 1,
    "getHours": lambda moment: moment.hour,
    "getMinutes": lambda moment: moment.minute,
    "getSeconds": lambda moment: moment.second,
    "getMilliseconds": lambda moment: moment.microsecond // 1000,
}

DURATION_PARTS: Final = {
    "getHours": 3600 * SECOND_NS,
    "getMinutes": 60 * SECOND_NS,
    "getSeconds": SECOND_NS,
    "getMilliseconds": 1_000_000,
}


def _whole(unit: int) -> Function:
    return lambda ns: _quotient(ns, unit)


ORDERED: Final = (BOOL, INT, UINT, DOUBLE, STRING, BYTES, TIMESTAMP, DURATION)


def _ordering(call: Function) -> list[Overload]:
    return [Overload((kind, kind), BOOL, call) for kind in ORDERED]


OVERLOADS: Final[dict[str, list[Overload]]] = {
    "_<_": _ordering(lambda a, b: a < b),
    "_<=_": _ordering(lambda a, b: a <= b),
    "_>_": _ordering(lambda a, b: a > b),
    "_>=_": _ordering(lambda a, b: a >= b),
    "_+_": [
        Overload((INT, INT), INT, _in_range(INTS, lambda a, b: a + b)),
        Overload((UINT, UINT), UINT, _in_range(UINTS, lambda a, b: a + b)),
        Overload((DOUBLE, DOUBLE), DOUBLE, lambda a, b: a + b),
        Overload((STRING, STRING), STRING, lambda a, b: a + b),
        Overload((BYTES, BYTES), BYTES, lambda a, b: a + b),
        Overload((TIMESTAMP, DURATION), TIMESTAMP, _in_range(INTS, lambda a, b: a + b)),
        Overload((DURATION, TIMESTAMP), TIMESTAMP, _in_range(INTS, lambda a, b: a + b)),
        Overload((DURATION, DURATION), DURATION, _in_range(INTS, lambda a, b: a + b)),
    ],
    "_-_": [
        Overload((INT, INT), INT, _in_range(INTS, lambda a, b: a - b)),
        Overload((UINT, UINT), UINT, _in_range(UINTS, lambda a, b: a - b)),
        Overload((DOUBLE, DOUBLE), DOUBLE, lambda a, b: a - b),
        Overload((TIMESTAMP, TIMESTAMP), DURATION, _in_range(INTS, lambda a, b: a - b)),
        Overload((TIMESTAMP, DURATION), TIMESTAMP, _in_range(INTS, lambda a, b: a - b)),
        Overload((DURATION, DURATION), DURATION, _in_range(INTS, lambda a, b: a - b)),
    ],
    "_*_": [
        Overload((INT, INT), INT, _in_range(INTS, lambda a, b: a * b)),
        Overload((UINT, UINT), UINT, _in_range(UINTS, lambda a, b: a * b)),
        Overload((DOUBLE, DOUBLE), DOUBLE, lambda a, b: a * b),
    ],
    "_/_": [
        Overload((INT, INT), INT, _in_range(INTS, _quotient)),
        Overload((UINT, UINT), UINT, _quotient),
        Overload((DOUBLE, DOUBLE), DOUBLE, _double_quotient),
    ],
    "_%_": [Overload((INT, INT), INT, _remainder), Overload((UINT, UINT), UINT, _remainder)],
    "!_": [Overload((BOOL,), BOOL, lambda a: not a)],
    "-_": [
        Overload((INT,), INT, _in_range(INTS, lambda a: -a)),
        Overload((DOUBLE,), DOUBLE, lambda a: -a),
    ],
    "size": [
        Overload((STRING,), INT, len),
        Overload((BYTES,), INT, len),
        Overload((list_of(DYN),), INT, len),
        Overload((map_of(DYN, DYN),), INT, len),
    ],
    "contains": [Overload((STRING, STRING), BOOL, lambda text, part: part in text)],
    "startsWith": [Overload((STRING, STRING), BOOL, str.startswith)],
    "endsWith": [Overload((STRING, STRING), BOOL, str.endswith)],
    "matches": [Overload((STRING, STRING), BOOL, _matches)],
    "int": [
        Overload((INT,), INT, int),
        Overload((UINT,), INT, _integer(INTS)),
        Overload((DOUBLE,), INT, _integer(INTS)),
        Overload((STRING,), INT, _integer(INTS)),
        Overload((TIMESTAMP,), INT, lambda ns: ns // SECOND_NS),
    ],
    "uint": [
        Overload((UINT,), UINT, int),
        Overload((INT,), UINT, _integer(UINTS)),
        Overload((DOUBLE,), UINT, _integer(UINTS)),
        Overload((STRING,), UINT, _integer(UINTS)),
    ],
    "double": [Overload((kind,), DOUBLE, _double) for kind in (DOUBLE, INT, UINT, STRING)],
    "string": [
        Overload((STRING,), STRING, str),
        Overload((INT,), STRING, str),
        Overload((UINT,), STRING, str),
        Overload((BOOL,), STRING, lambda value: "true" if value else "false"),
        Overload((DOUBLE,), STRING, _text_of_double),
        Overload((BYTES,), STRING, _text_of_bytes),
        Overload((TIMESTAMP,), STRING, _text_of_timestamp),
        Overload((DURATION,), STRING, _text_of_duration),
    ],
    "bytes": [Overload((BYTES,), BYTES, bytes), Overload((STRING,), BYTES, str.encode)],
    "bool": [Overload((BOOL,), BOOL, bool), Overload((STRING,), BOOL, _bool)],
    "timestamp": [
        Overload((TIMESTAMP,), TIMESTAMP, int),
        Overload((STRING,), TIMESTAMP, _timestamp),
        Overload((INT,), TIMESTAMP, lambda seconds: seconds * SECOND_NS),
    ],
    "duration": [Overload((DURATION,), DURATION, int), Overload((STRING,), DURATION, _duration)],
}
for _name, _read in TIME_PARTS.items():
    OVERLOADS[_name] = [
        Overload((TIMESTAMP,), INT, _part(_read)),
        Overload((TIMESTAMP, STRING), INT, _part(_read)),
    ]
for _name, _unit in DURATION_PARTS.items():
    OVERLOADS[_name].append(Overload((DURATION,), INT, _whole(_unit)))


# Functions of any type.

Resolved = tuple[Type, Function]


def _equality(args: Sequence[Type]) -> Resolved | None:
    return (BOOL, lambda a, b: _same(a, b)) if len(args) == 2 and comparable(*args) else None


def _inequality(args: Sequence[Type]) -> Resolved | None:
    return (BOOL, lambda a, b: not _same(a, b)) if len(args) == 2 and comparable(*args) else None


def _same(a: Any, b: Any) -> bool:
    # To Python True is 1, to CEL it is not; that only shows where types are not known.
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _membership(args: Sequence[Type]) -> Resolved | None:
    if len(args) != 2:
        return None
    element, container = args
    if container == DYN:
        return BOOL, _contains_any
    if container.name in ("list", "map") and comparable(element, container.args[0]):
        return BOOL, (lambda value, values: value in values) if container.name == "map" else _contains
    return None


def _contains(value: Any, values: Sequence[Any]) -> bool:
    return any(_same(value, other) for other in values)


def _contains_any(value: Any, values: Any) -> bool:
    if isinstance(values, str | bytes) or not hasattr(values, "__contains__"):
        raise CelRuntimeError("no such overload")
    return value in values


def _index(args: Sequence[Type]) -> Resolved | None:
    if len(args) != 2:
        return None
    container, index = args
    if container == DYN:
        return DYN, _item
    if container.name == "list" and fits(index, INT):
        return container.args[0], _item
    if container.name == "map" and comparable(index, container.args[0]):
        return container.args[1], _item
    return None


def _item(container: Any, index: Any) -> Any:
    if isinstance(container, dict):
        if index not in container:
            raise CelRuntimeError("no such key")
        return container[index]
    if not isinstance(index, int) or isinstance(container, str | bytes) or not 0 <= index < len(container):
        raise CelRuntimeError("index out of bounds")
    return container[index]


def _list_sum(args: Sequence[Type]) -> Resolved | None:
    if len(args) == 2 and all(kind.name == "list" for kind in args):
        element = joined([kind.args[0] for kind in args])
        return list_of(element), lambda a, b: [*a, *b]
    return None


def _dyn(args: Sequence[Type]) -> Resolved | None:
    return (DYN, lambda value: value) if len(args) == 1 else None


GENERIC: Final[dict[str, Callable[[Sequence[Type]], Resolved | None]]] = {
    "_==_": _equality,
    "_!=_": _inequality,
    "@in": _membership,
    "_[_]": _index,
    "_+_": _list_sum,
    "dyn": _dyn,
}
