"""From flags to the requests and to the look of the answers.

In:        a Call, Settings, the time.
Out:       GetFlowsRequest, GetAgentEventsRequest, GetDebugEventsRequest; Look.
Elsewhere: filters.py has the filter flags; stream.py and files.py use the request.
"""

from __future__ import annotations

import os
from json import JSONDecodeError
from typing import Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from cli.command import Call
from cli.errors import CommandError
from cli.filters import filters_of
from cli.output import wants_colour
from cli.settings import PREFIXES, Settings
from model.mask import FieldMask, InvalidMask
from model.text.flows import SHOWN_FIELDS, Look, Output
from model.text.fromjson import many_from_json
from model.text.moments import parse_time
from model.text.parts import FlowStyle
from model.text.quote import quote
from model.text.style import Style
from model.text.times import time_format
from model.text.tojson import to_json
from proto.flow import flow_pb2
from proto.observer import observer_pb2

EVERYTHING: Final = (1 << 64) - 1
DEFAULT_COUNT: Final = 20

_OUTPUTS: Final = {
    "compact": Output.COMPACT,
    "dict": Output.DICT,
    "tab": Output.TABLE,
    "table": Output.TABLE,
    "json": Output.JSON,
    "JSON": Output.JSON,
    "jsonpb": Output.JSON,
}

COLUMN_FILES: Final = ("arrow", "parquet", "csv")
"""Outputs of flows that are no text: sinks.py."""

Events = TypeVar("Events", observer_pb2.GetAgentEventsRequest, observer_pb2.GetDebugEventsRequest)


def look_of(call: Call, settings: Settings, *, flows: bool) -> Look:
    """How answers are shown.

    Raises: CommandError for an output that does not exist or does not fit.
    """
    name = call.text("output")
    output = _OUTPUTS.get(name, Output.COMPACT if flows and name in COLUMN_FILES else None)
    if output is None:
        raise CommandError(f"invalid output format: {name}")
    if output is Output.TABLE and call.on("follow"):
        raise CommandError("table output format is not compatible with follow mode")
    if name in ("json", "JSON") and wants_legacy_json():
        output = Output.LEGACY_JSON
    paints = flows and output in (Output.COMPACT, Output.DICT) and wants_colour(call.text("color"))
    return Look(
        output=output,
        times=time_format(call.text("time-format")),
        node_names=call.on("print-node-name"),
        flows=FlowStyle(
            translate=not flows or (call.on("ip-translation") and not call.on("numeric")),
            policy_names=call.on("print-policy-names"),
            style=Style(paints),
        ),
        all_node_status=settings.on("debug"),
        silent=call.on("silent-errors"),
    )


def wants_legacy_json() -> bool:
    """Whether the environment asks for JSON without the response around the record."""
    words = ",".join(os.environ.get(prefix + "COMPAT", "") for prefix in PREFIXES).lower().split(",")
    return "legacy-json-output" in words


def mask_paths(call: Call, look: Look) -> tuple[str, ...]:
    """The paths of the field mask to send; none: all fields.

    Raises: CommandError for a mask where the output needs its own.
    """
    paths = call.items("field-mask")
    if look.output is Output.JSON or needs_rows(call):
        return paths
    if paths:
        raise CommandError(f"{call.text('output')} output format is not compatible with custom field mask")
    return SHOWN_FIELDS if call.on("use-default-field-masks") else ()


def needs_rows(call: Call) -> bool:
    """Whether flows are not printed one by one, but written as columns or counted."""
    return call.text("output") in COLUMN_FILES or bool(call.items("group-by"))


def flows_request(call: Call, settings: Settings, look: Look, now_ns: int) -> observer_pb2.GetFlowsRequest:
    """The request for flows.

    Raises: CommandError, in the order in which Hubble complains.
    """
    paths = mask_paths(call, look)
    first, last = call.number("first"), call.number("last")
    everything, follow = call.on("all"), call.on("follow")
    for one, other, both in (
        ("first", "last", first and last),
        ("first", "all", first and everything),
        ("first", "follow", first and follow),
        ("last", "all", last and everything),
    ):
        if both:
            raise CommandError(f"cannot set both --{one} and --{other}")
    since, until = bounds(call, now_ns)
    if since is None and until is None and not first:
        if everything:
            last = EVERYTHING
        elif not last and not follow and not call.text("input-file") and not call.items("group-by"):
            # To count is to count all that is stored.
            last = DEFAULT_COUNT
    filters = filters_of(call.values)
    allow = [flow_pb2.FlowFilter(**one) for one in filters.allow()] + raw_filters("allowlist", settings)
    deny = [flow_pb2.FlowFilter(**one) for one in filters.deny()] + raw_filters("denylist", settings)
    request = observer_pb2.GetFlowsRequest(
        number=first or last,
        first=bool(first),
        follow=follow,
        since=since,
        until=until,
        whitelist=allow,
        blacklist=deny,
    )
    if paths:
        try:
            FieldMask.parse(paths)
        except InvalidMask as error:
            raise CommandError(
                f'failed to construct field mask: proto: invalid path {quote(error.path)} for message "flow.Flow"'
            ) from error
        request.field_mask.paths.extend(paths)
    return request


def events_request(call: Call, now_ns: int, request: Events) -> Events:
    """Fill the request for agent or debug events. Raises: CommandError."""
    since, until = bounds(call, now_ns)
    number = call.number("last")
    if since is None and until is None:
        number = EVERYTHING if call.on("all") else number or DEFAULT_COUNT
    request.number = number
    request.follow = call.on("follow")
    if since is not None:
        request.since.CopyFrom(since)
    if until is not None:
        request.until.CopyFrom(until)
    return request


def bounds(call: Call, now_ns: int) -> tuple[Timestamp | None, Timestamp | None]:
    """`--since` and `--until`, which a stream without end does not have. Raises: CommandError."""
    since = _bound(call, "since", now_ns)
    return since, None if call.on("follow") else _bound(call, "until", now_ns)


def _bound(call: Call, name: str, now_ns: int) -> Timestamp | None:
    text = call.text(name)
    if not text:
        return None
    try:
        seconds, nanos = divmod(parse_time(text, now_ns), 1_000_000_000)
    except ValueError as error:
        raise CommandError(f"failed to parse the {name} time: {error}") from error
    return Timestamp(seconds=seconds, nanos=nanos)


def raw_filters(name: str, settings: Settings) -> list[flow_pb2.FlowFilter]:
    """Filters given as JSON. Raises: CommandError."""
    filters: list[flow_pb2.FlowFilter] = []
    for text in settings.items(name):
        try:
            filters += many_from_json(text, flow_pb2.FlowFilter)
        except ValueError as error:
            reason = json_complaint(error) if isinstance(error, JSONDecodeError) else str(error)
            raise CommandError(f"invalid --{name} flag: failed to decode '{text}': {reason}") from error
    return filters


def json_complaint(error: JSONDecodeError) -> str:
    """A syntax error in the words of Go's decoder, which Hubble's users have seen before."""
    place = error.pos + len(error.doc[error.pos :]) - len(error.doc[error.pos :].lstrip(" \t\r\n"))
    if place >= len(error.doc) or error.msg.startswith("Unterminated"):
        return "unexpected EOF"
    where = next((words for start, words in _COMPLAINTS.items() if error.msg.startswith(start)), "in JSON")
    return f"invalid character '{quote(error.doc[place])[1:-1]}' {where}"


_COMPLAINTS: Final = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name": "looking for beginning of object key string",
    "Expecting ':'": "after object key",
    "Expecting ','": "after object key:value pair",
    "Invalid control": "in string literal",
    "Invalid \\": "in string escape code",
}


def filters_yaml(request: observer_pb2.GetFlowsRequest) -> str:
    """The filters of a request as a config file has them."""
    lines = []
    for name, filters in (("allowlist", request.whitelist), ("denylist", request.blacklist)):
        if filters:
            lines.append(f"{name}:\n")
            lines += [f"    - {yaml_text(to_json(one))}\n" for one in filters]
    return "".join(lines) or "{}\n"


def yaml_text(json: str) -> str:
    """A JSON object as a YAML scalar."""
    if any(ord(char) > 0xFFFF or not (char.isprintable() or char == " ") for char in json):
        # YAML 1.1's printable characters end before the astral planes; double quotes can escape the rest.
        return '"' + "".join(map(_yaml_char, json)) + '"'
    return "'" + json.replace("'", "''") + "'"


def _yaml_char(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    code = ord(char)
    if code > 0xFFFF:
        return f"\\U{code:08X}"
    if char.isprintable():
        return char
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}"
