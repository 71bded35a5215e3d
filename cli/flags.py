"""Kinds of flags: what text a flag takes and what value it becomes.

In:        the text of one use of a flag.
Out:       a value, or ValueError with the words that Hubble's users know from Go's flag library.
Elsewhere: command.py wraps these words into `invalid argument "x" for "--name" flag: ...`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cli.gotext import format_duration, parse_bool, parse_duration, parse_int, parse_uint


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A type of flag value."""

    type_name: str
    """Shown in help behind the flag's name; empty for flags without a value."""
    parse: Callable[[str, object], object]
    """(text, value so far) -> new value. The value so far is None on the first use."""
    bare: str | None = None
    """The text meant when the flag is used without `=value`; None: the flag needs a value."""
    zero: object = None
    """The default of flags that name none."""
    show: Callable[[object], str] = str
    """How a default looks in help."""


def _list(text: str, so_far: object) -> tuple[str, ...]:
    """Comma-separated (CSV quoting, as Go's) and repeatable."""
    items: tuple[str, ...]
    if not text:
        items = ()
    elif '"' in text:
        import csv

        items = tuple(next(csv.reader([text], strict=True)))
    else:
        items = tuple(text.split(","))
    return (so_far if isinstance(so_far, tuple) else ()) + items


def _repeated(text: str, so_far: object) -> tuple[str, ...]:
    return (*(so_far if isinstance(so_far, tuple) else ()), text)


def _number(text: str, _so_far: object) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'strconv.ParseFloat: parsing "{text}": invalid syntax') from None


def _show_list(value: object) -> str:
    return "[" + ",".join(value) + "]" if isinstance(value, tuple) else str(value)


def _show_bool(value: object) -> str:
    return "true" if value else "false"


def _show_duration(value: object) -> str:
    return format_duration(value) if isinstance(value, int) else str(value)


TEXT: Final = Kind(type_name="string", parse=lambda text, _: text, zero="")
BOOL: Final = Kind(type_name="", parse=lambda text, _: parse_bool(text), bare="true", zero=False, show=_show_bool)
INT: Final = Kind(type_name="int", parse=lambda text, _: parse_int(text, 64), zero=0)
UINT64: Final = Kind(type_name="uint", parse=lambda text, _: parse_uint(text, 64), zero=0)
UINT16: Final = Kind(type_name="uint16", parse=lambda text, _: parse_uint(text, 16), zero=0)
FLOAT: Final = Kind(type_name="float", parse=_number, zero=0.0)
DURATION: Final = Kind(type_name="duration", parse=lambda text, _: parse_duration(text), zero=0, show=_show_duration)
"""Value: nanoseconds."""
LIST: Final = Kind(type_name="strings", parse=_list, zero=(), show=_show_list)
"""Comma-separated and repeatable; value: tuple of texts."""
REPEATED: Final = Kind(type_name="stringArray", parse=_repeated, zero=(), show=_show_list)
"""Repeatable, commas belong to the text; value: tuple of texts."""
