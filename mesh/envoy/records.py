"""Requests and responses as Envoy writes them down: in the very form that the observer reads.

In:        the path of a file.
Out:       access logs for Envoy's configuration.
Elsewhere: spool.py carries what Envoy writes to the observer; model/decode/accesslog.py reads it.

Envoy writes JSON, and escapes whatever is in a path or a header; nothing in Python looks at a record. A request is
written when a connection to a server is there for it, before the server has it; the response when it is over. Tries
of one request are told one by one. What no server ever gets is written at the end: refused, or failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

Tree = dict[str, Any]

_TIME: Final = "(%Y-%m-%dT%H:%M:%S.%9fZ)"
_UNREACHED: Final = ("UF", "UH", "UO", "NR", "NC")
"""Why no server was asked: no connection, none there, too many, no route, no cluster."""
_FAILED: Final = (*_UNREACHED, "UC", "UR", "UT", "URX", "LH", "UMSDR", "DPE", "DT", "OM")
"""Why Envoy answers by itself; the others: a server that broke off, or was too slow; no HTTP; no memory."""
_NO_HTTP: Final = ("UPE",)
"""The server's answer is none. One that begins well has been told, with the code that the server gave it."""
_BAD_GATEWAY: Final = 502
LONGEST_URL: Final = 2048
LONGEST_HEADER: Final = 256

_CLIENT: Final = {"ip": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "port": "%DOWNSTREAM_REMOTE_PORT%"}
_SERVER: Final = {"ip": "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "port": "%UPSTREAM_REMOTE_PORT%"}
_WANTED: Final = {"ip": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "port": "%DOWNSTREAM_LOCAL_PORT%"}
_REQUEST_HEADERS: Final = ("X-Request-Id", "User-Agent", "Traceparent")
"""Of a record of a request. The id joins it with its response, the trace with others."""


def upstream_logs(point: str, file: str) -> list[Tree]:
    """For the router: each try at a server, and how it ended."""
    ended = {"log_type_filter": {"types": ["UpstreamEnd"]}}
    return [
        _log(file, {"log_type_filter": {"types": ["UpstreamPoolReady"]}}, _request(point, "Forwarded", _SERVER)),
        _log(file, _all(ended, status_is("GE", 100)), _response(point, _SERVER)),
    ]


def downstream_logs(point: str, file: str) -> list[Tree]:
    """For the connection manager: what Envoy answered by itself."""
    denied = {
        "metadata_filter": {
            "matcher": {
                "filter": "envoy.filters.http.rbac",
                "path": [{"key": "enforced_engine_result"}],
                "value": {"string_match": {"exact": "denied"}},
            },
            "match_if_key_not_found": False,
        }
    }
    return [
        _log(file, denied, _request(point, "Denied", _WANTED)),
        _log(file, _flags(_UNREACHED), _request(point, "Forwarded", _WANTED)),
        _log(file, _flags(_FAILED), _response(point, _WANTED)),
        _log(file, _all(_flags(_NO_HTTP), status_is("EQ", _BAD_GATEWAY)), _response(point, _WANTED)),
    ]


def _flags(flags: Sequence[str]) -> Tree:
    return {"response_flag_filter": {"flags": list(flags)}}


def status_is(operator: str, number: int) -> Tree:
    """A filter on the status of the answer."""
    comparison = {"op": operator, "value": {"default_value": number, "runtime_key": "access_log.status"}}
    return {"status_code_filter": {"comparison": comparison}}


def _request(point: str, verdict: str, server: Tree) -> Tree:
    return _record("Request", "START_TIME", point, verdict, _CLIENT, server, _REQUEST_HEADERS, {})


def _response(point: str, server: Tree) -> Tree:
    code = {"code": "%RESPONSE_CODE%"}
    return _record("Response", "EMIT_TIME", point, "Forwarded", server, _CLIENT, _REQUEST_HEADERS[:1], code)


def _record(
    kind: str, time: str, point: str, verdict: str, source: Tree, target: Tree, headers: Sequence[str], more: Tree
) -> Tree:
    return {
        "type": kind,
        "timestamp": f"%{time}{_TIME}%",
        "observation_point": point.capitalize(),
        "source_endpoint": source,
        "destination_endpoint": target,
        "verdict": verdict,
        "transport_protocol": 6,
        "http": {
            **more,
            "method": "%REQ(:METHOD)%",
            "url": f"%REQ(:SCHEME)%://%REQ(:AUTHORITY):{LONGEST_HEADER}%%REQ(:PATH):{LONGEST_URL}%",
            "protocol": "%PROTOCOL%",
            "headers": {name: f"%REQ({name}):{LONGEST_HEADER}%" for name in headers},
        },
    }


def _all(*filters: Tree) -> Tree:
    return {"and_filter": {"filters": list(filters)}}


def _log(file: str, chosen: Tree, record: Tree) -> Tree:
    return {
        "name": "envoy.access_loggers.file",
        "filter": chosen,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": file,
            "log_format": {"json_format": record, "omit_empty_values": True},
        },
    }
