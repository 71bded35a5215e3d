"""Questions: keyword arguments in the words of `flowscope observe` become a request.

`pod=`, `ip=`, `port=` and their kin mean either side, `from_pod=` and `to_pod=` one of them; a list means any of its
values; different words must all hold. Sides are kept apart as the CLI keeps them: `ip="10.0.0.1", port=80` is that
address with that port, on one and the same side.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from flowscope.error import FlowscopeError
from model.vocabulary import MESSAGE_TYPES, RESERVED_IDENTITY_NUMBERS
from proto.flow import flow_pb2
from proto.observer import observer_pb2

SIDED: Final = ("pod", "ip", "port", "label", "service", "workload", "identity", "fqdn", "namespace")
"""Words that also exist as from_... and to_..."""
FIELDS: Final = {
    "uuid": "uuid",
    "node": "node_name",
    "node_label": "node_labels",
    "verdict": "verdict",
    "drop_reason": "drop_reason_desc",
    "protocol": "protocol",
    "type": "event_type",
    "tcp_flags": "tcp_flags",
    "http_status": "http_status_code",
    "http_method": "http_method",
    "http_path": "http_path",
    "http_url": "http_url",
    "dns_query": "dns_query",
    "reply": "reply",
    "trace_id": "trace_id",
    "cel": "experimental",
}
"""Words that concern the whole flow."""

SPAN: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
NS: Final = 1_000_000_000

Time = str | datetime | timedelta


def request_of(
    *,
    last: int = 0,
    first: int = 0,
    since: Time | None = None,
    until: Time | None = None,
    follow: bool = False,
    exclude: Mapping[str, Any] | None = None,
    allow: Iterable[flow_pb2.FlowFilter] = (),
    deny: Iterable[flow_pb2.FlowFilter] = (),
    **words: Any,
) -> observer_pb2.GetFlowsRequest:
    """The request for a question.

    last, first   how many flows per node; neither, nor since, until or follow: everything that is stored
    since, until  a datetime, a timedelta into the past, or text (`5m`, `2d12h`, RFC 3339)
    exclude       words of flows that are not wanted
    allow, deny   FlowFilter messages beside the words
    Raises: FlowscopeError InvalidArgument naming the word.
    """
    if first and (last or follow):
        raise _wrong("first cannot be combined with last or follow")
    request = observer_pb2.GetFlowsRequest(number=last or first, first=bool(first), follow=follow)
    for name, moment in (("since", since), ("until", until)):
        if moment is not None:
            getattr(request, name).CopyFrom(_timestamp(name, moment))
    request.whitelist.extend([*filters_of(words), *allow])
    request.blacklist.extend([*filters_of(exclude or {}), *deny])
    return request


def filters_of(words: Mapping[str, Any]) -> list[flow_pb2.FlowFilter]:
    """Filters for words: none, one, or one for each side that a sided word may be on."""
    left, right = flow_pb2.FlowFilter(), flow_pb2.FlowFilter()
    for word, value in words.items():
        values = [value] if isinstance(value, (str, bytes, int)) else list(value)
        side, _, rest = word.partition("_")
        try:
            if word in SIDED:
                _add_sided(left, "source", word, values)
                _add_sided(right, "destination", word, values)
            elif side in ("from", "to") and rest in SIDED:
                for one in (left, right):
                    _add_sided(one, "source" if side == "from" else "destination", rest, values)
            elif word in FIELDS:
                for one in (left, right):
                    _add(one, FIELDS[word], values)
            else:
                raise _wrong(f"unknown word {word!r}; use one of {', '.join((*SIDED, *FIELDS))}")
        except (TypeError, ValueError) as error:
            raise _wrong(f"{word}={value!r}: {error}") from error
    if not words:
        return []
    return [left] if left == right else [left, right]


def _add_sided(one: flow_pb2.FlowFilter, side: str, word: str, values: list[Any]) -> None:
    match word:
        case "namespace":
            getattr(one, f"{side}_pod").extend(f"{name}/" for name in values)
        case "workload":
            for text in values:
                kind, slash, name = str(text).partition("/")
                workload = flow_pb2.Workload(kind=kind, name=name) if slash else flow_pb2.Workload(name=kind)
                getattr(one, f"{side}_workload").append(workload)
        case "identity":
            getattr(one, f"{side}_identity").extend(_identity(value) for value in values)
        case _:
            getattr(one, f"{side}_{word}").extend(map(str, values))


def _add(one: flow_pb2.FlowFilter, field: str, values: list[Any]) -> None:
    match field:
        case "event_type":
            for name in values:
                number = MESSAGE_TYPES.get(str(name))
                one.event_type.add(type=int(name) if number is None else number)
        case "tcp_flags":
            for text in values:
                one.tcp_flags.add(**dict.fromkeys(str(text).upper().split(","), True))
        case "experimental":
            one.experimental.cel_expression.extend(values)
        case "verdict" | "drop_reason_desc" | "reply":
            getattr(one, field).extend(values)
        case _:
            getattr(one, field).extend(map(str, values))


def _identity(value: str | int) -> int:
    return RESERVED_IDENTITY_NUMBERS.get(str(value)) or int(value)


def _timestamp(name: str, moment: Time) -> Timestamp:
    stamp = Timestamp()
    if isinstance(moment, str):
        span = SPAN.fullmatch(moment)
        if span and any(span.groups()):
            days, hours, minutes, seconds = (float(part or 0) for part in span.groups())
            moment = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        else:
            try:
                moment = datetime.fromisoformat(moment)
            except ValueError as error:
                raise _wrong(f"{name}={moment!r}: expected a span like 5m or 2d, or a time in RFC 3339") from error
    if isinstance(moment, timedelta):
        stamp.FromNanoseconds(time.time_ns() - int(moment.total_seconds() * NS))
    else:
        stamp.FromDatetime(moment.astimezone(UTC))
    return stamp


def _wrong(message: str) -> FlowscopeError:
    return FlowscopeError("InvalidArgument", message)
