"""Requests, checked and turned into what the ring understands; refusals with the codes that clients know.

In:        messages of observer.Observer.
Out:       Window, FlowPredicate, FieldMask, or an RpcError.
Elsewhere: window.py walks the ring; model/filters and model/mask.py compile the parts.

Codes: Hubble answers INVALID_ARGUMENT to `first` with `follow` only; a bad filter, mask or timestamp is UNKNOWN with
the problem as its text, and its clients print that text alone. We do the same, so that nothing looks different; where
the text does not say which field is meant, we add it. What Hubble cannot know of (a filter field of a later version,
which it would ignore and so send too much) is refused with INVALID_ARGUMENT.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from model.filters import FlowPredicate, InvalidFilter, compile_filters
from model.mask import FieldMask, InvalidMask
from observer.window import Window
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from rpc.status import RpcError, Status


class WindowRequest(Protocol):
    """What GetFlows, GetAgentEvents and GetDebugEvents have in common."""

    number: int
    first: bool
    follow: bool

    @property
    def since(self) -> Timestamp: ...
    @property
    def until(self) -> Timestamp: ...
    def HasField(self, name: str) -> bool: ...  # noqa: N802 (protobuf's word)


def window_of(request: WindowRequest) -> Window:
    """The window of a request.

    Raises: RpcError.
    """
    if request.first and request.follow:
        raise RpcError(Status.INVALID_ARGUMENT, "first cannot be specified with follow")
    return Window(
        number=request.number,
        first=request.first,
        follow=request.follow,
        since_ns=_time_ns("since", request.since) if request.HasField("since") else None,
        until_ns=_time_ns("until", request.until) if request.HasField("until") else None,
    )


def predicate_of(request: observer_pb2.GetFlowsRequest) -> FlowPredicate | None:
    """The request's filters; None when everything passes.

    Raises: RpcError.
    """
    for name, filters in (("whitelist", request.whitelist), ("blacklist", request.blacklist)):
        _refuse_unknown_filters(name, filters)
    if not request.whitelist and not request.blacklist:
        return None
    try:
        return compile_filters(request.whitelist, request.blacklist, port_ranges=True)
    except InvalidFilter as error:
        raise RpcError(Status.UNKNOWN, _naming(error.field, str(error))) from error


def mask_of(request: observer_pb2.GetFlowsRequest) -> FieldMask | None:
    """The request's field mask; None when whole flows are wanted.

    Raises: RpcError.
    """
    try:
        return FieldMask.parse(request.field_mask.paths)
    except InvalidMask as error:
        raise RpcError(Status.UNKNOWN, str(error)) from error


def _naming(field: str, text: str) -> str:
    words = field.replace("_", " ")
    return text if not field or field in text or words in text else f"{text} (in {field})"


def _time_ns(name: str, time: Timestamp) -> int:
    if not 0 <= time.nanos < 1_000_000_000:
        raise RpcError(Status.UNKNOWN, f"invalid {name}: nanos must be 0 to 999999999, got {time.nanos}")
    if not -62_135_596_800 <= time.seconds < 253_402_300_800:
        raise RpcError(Status.UNKNOWN, f"invalid {name}: {time.seconds} s is outside of the years 1 to 9999")
    # Rows hold 64 bits, which end in 2262; what lies beyond compares the same.
    return max(-(2**63), min(time.seconds * 1_000_000_000 + time.nanos, 2**63 - 1))


def _refuse_unknown_filters(where: str, filters: Iterable[flow_pb2.FlowFilter]) -> None:
    for one in filters:
        number = _unknown_field(one)
        if number is not None:
            raise RpcError(
                Status.INVALID_ARGUMENT,
                f"{where} has a filter that this server does not know (field {number}); it would match too much",
            )


def _unknown_field(message: Message) -> int | None:
    """Number of a field, at any depth, that our definitions do not have."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        return int(unknown[0].field_number)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                number = _unknown_field(inner)
                if number is not None:
                    return number
    return None
