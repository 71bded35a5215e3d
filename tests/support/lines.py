"""What Envoy's lines say, as the records of which they are the short form.

In:        a line or a JSON record.
Out:       the JSON record.
Elsewhere: model/decode/lines.py reads lines for the observer.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from model.decode.lines import FIELDS, SEPARATOR, is_line


def record_of(text: bytes) -> dict[str, Any]:
    """The record; what is empty in a line is not there."""
    if not is_line(text):
        record: dict[str, Any] = json.loads(text)
        return record
    told = dict(zip(FIELDS, text.decode("utf-8", "replace").split(SEPARATOR), strict=True))
    client = _end(told["client"], told["client_port"])
    server = _end(told["server"], told["server_port"])
    is_response = told["type"] == "Response"
    headers = {"X-Request-Id": told["request_id"]}
    if not is_response:
        headers |= {"Traceparent": told["traceparent"], "User-Agent": told["user_agent"]}
    http = {name: told[name] for name in ("method", "protocol", "url") if told[name]}
    return {
        **{name: told[name] for name in ("type", "verdict", "observation_point")},
        "timestamp": timestamp(int(told["time"])),
        "source_endpoint": server if is_response else client,
        "destination_endpoint": client if is_response else server,
        "transport_protocol": 6,
        "http": http
        | ({"code": int(told["code"])} if told["code"] else {})
        | {"headers": {name: value for name, value in headers.items() if value}},
    }


def timestamp(ns: int) -> str:
    """RFC 3339."""
    seconds, nanos = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def _end(ip: str, port: str) -> dict[str, Any]:
    return ({"ip": ip} if ip else {}) | ({"port": int(port)} if port else {})
