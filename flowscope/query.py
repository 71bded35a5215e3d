"""Questions: keyword arguments in the words of `flowscope observe` become a request.

In:        words such as `pod="shop/cart"`, `verdict="DROPPED"`, `since="5m"`; FlowFilter messages.
Out:       GetFlowsRequest; FlowscopeError naming the word that is wrong.
Elsewhere: model/filter_words.py says what each word stands for; what a filter matches is decided by the server.

A word is a flag of the command line with underscores: `to_pod=` is `--to-pod`. A list means any of its values, and
different words must all hold, as flags typed together do: `ip="10.0.0.1", port=80` is that address with that port, on
one and the same side.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from flowscope.error import FlowscopeError
from model.filter_words import FILTER_WORDS, FilterSet, FilterWord
from model.mask import FieldMask, InvalidMask
from model.text.moments import parse_time
from proto.flow import flow_pb2
from proto.observer import observer_pb2

_FLAGS: Final[dict[str, FilterWord]] = {
    word.name.replace("-", "_"): word for word in FILTER_WORDS if word.name != "not"
}
_SHORTER: Final = {"drop_reason": "drop_reason_desc", "node": "node_name", "cel": "cel_expression"}
"""Names that need no flag in front of them to be understood."""
_FIELDS: Final = {
    "reply": ("reply", bool, "True: answers only, False: requests only"),
    "dns_query": ("dns_query", str, "DNS name that is asked for, a regular expression"),
}
"""Words without a flag: field of FlowFilter, what its values are, help."""
_IN_CAPITALS: Final = ("verdict", "drop_reason_desc")

WORDS: Final[dict[str, str]] = {
    **{word: flag.help for word, flag in _FLAGS.items()},
    **{word: _FLAGS[full].help for word, full in _SHORTER.items()},
    **{word: help_text for word, (_, _, help_text) in _FIELDS.items()},
}
"""Every filter word with its help."""

Time = str | datetime | timedelta
Words = Mapping[str, Any]


def request_of(
    *,
    last: int = 0,
    first: int = 0,
    since: Time | None = None,
    until: Time | None = None,
    follow: bool = False,
    exclude: Words | Iterable[Words] = (),
    allowlist: Iterable[flow_pb2.FlowFilter] = (),
    denylist: Iterable[flow_pb2.FlowFilter] = (),
    field_mask: Iterable[str] = (),
    **words: Any,
) -> observer_pb2.GetFlowsRequest:
    """The request for a question.

    last, first          how many flows per node; without these, since, until and follow: everything that is stored.
                         With since they are the oldest ones from then on (so it is with Hubble).
    since, until         a datetime, a timedelta into the past, or text: `5m`, `2d12h`, `2026-01-02T15:04Z`
    follow               go on with new flows as they happen
    exclude              words of flows that are not wanted; or a list of such, of which any may hold
    allowlist, denylist  FlowFilter messages beside the words; see filters_of
    field_mask           paths of flow.Flow; what they do not name stays empty
    words                see WORDS
    Raises: FlowscopeError InvalidArgument naming the word.
    """
    for one, other, both in (
        ("first", "last", first and last),
        ("first", "follow", first and follow),
        ("until", "follow", until is not None and follow),
    ):
        if both:
            raise _wrong(f"{one} and {other} cannot be combined")
    for name, number in (("last", last), ("first", first)):
        if not 0 <= number < 1 << 64:
            raise _wrong(f"{name}={number!r}: expected a number of flows")
    request = observer_pb2.GetFlowsRequest(number=last or first, first=bool(first), follow=follow)
    for name, moment in (("since", since), ("until", until)):
        if moment is not None:
            getattr(request, name).CopyFrom(_timestamp(name, moment))
    try:
        FieldMask.parse(paths := _texts(field_mask))
    except InvalidMask as error:
        raise _wrong(f"field_mask: flow.Flow has no {error.path}") from error
    if paths:
        request.field_mask.paths.extend(paths)
    request.whitelist.extend([*filters_of(**words), *allowlist])
    for unwanted in [exclude] if isinstance(exclude, Mapping) else exclude:
        request.blacklist.extend(filters_of(**unwanted))
    request.blacklist.extend(denylist)
    return request


def filters_of(**words: Any) -> list[flow_pb2.FlowFilter]:
    """The FlowFilters that words stand for: none, one, or one for each side that a flow may be on.

    For `allowlist` and `denylist`, where any filter of the list may match:
    `allowlist=[*filters_of(pod="shop/cart"), *filters_of(verdict="DROPPED")]`.
    Raises: FlowscopeError InvalidArgument naming the word.
    """
    flags = FilterSet()
    beside: dict[str, list[Any]] = {}
    for word, value in words.items():
        try:
            if word in _FIELDS:
                field, kind, _ = _FIELDS[word]
                beside[field] = [_exactly(kind, one) for one in _values(value)]
            else:
                _use(flags, word, value)
        except (TypeError, ValueError) as error:
            raise _wrong(f"{word}={value!r}: {_in_our_words(str(error))}") from error
    found = flags.allow() or ([{}] if beside else [])
    return [flow_pb2.FlowFilter(**{**one, **beside}) for one in found]


def _use(flags: FilterSet, word: str, value: Any) -> None:
    word = _SHORTER.get(word, word)
    flag = _FLAGS.get(word)
    if flag is None:
        close = get_close_matches(word, WORDS, 1)
        raise ValueError("no such word" + (f"; did you mean {close[0]}?" if close else "; see flowscope.WORDS"))
    if not flag.value:
        if value is not True:
            raise ValueError("can only be True; leave it out otherwise")
        flags.use(flag.name, "")
        return
    for one in _values(value):
        if isinstance(one, bool) or not isinstance(one, (str, int)):
            raise TypeError(f"expected text or a number, got {type(one).__name__}")
        flags.use(flag.name, str(one).upper() if word in _IN_CAPITALS else str(one))


def _values(value: Any) -> list[Any]:
    found = [value] if isinstance(value, (str, int)) else list(value)
    if not found:
        # No value would match nothing, no filter everything; neither is likely meant.
        raise ValueError("the list is empty")
    return found


def _exactly(kind: type, value: Any) -> Any:
    # bool("no") is True, so nothing is converted.
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _texts(value: Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _in_our_words(text: str) -> str:
    """Flags in an error text as the words that were written."""
    return re.sub(r"--([a-z-]+)", lambda found: found[1].replace("-", "_"), text)


def _timestamp(name: str, moment: Time) -> Timestamp:
    stamp = Timestamp()
    try:
        if isinstance(moment, str):
            stamp.FromNanoseconds(parse_time(moment, time.time_ns()))
        elif isinstance(moment, timedelta):
            stamp.FromNanoseconds(time.time_ns() - round(moment / timedelta(microseconds=1)) * 1000)
        else:
            stamp.FromDatetime(moment.astimezone(UTC))
    except (ValueError, AttributeError, TypeError) as error:
        raise _wrong(f"{name}={moment!r}: expected 5m or 2d, 2026-01-02T15:04Z, a datetime or a timedelta") from error
    return stamp


def _wrong(message: str) -> FlowscopeError:
    return FlowscopeError("InvalidArgument", message)
