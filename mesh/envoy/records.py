"""Requests and responses as Envoy writes them down: lines of fields, in the very form that the observer reads.

In:        the path of a file.
Out:       access logs for Envoy's configuration.
Elsewhere: spool.py carries what Envoy writes to the observer; model/decode/lines.py says what the fields are and reads
           them.

Envoy puts texts one after the other, which costs it a third of what JSON does, and the observer a fifth; nothing
between them looks at a record. Whatever is in a path or a header is written as it is: Envoy takes no request in which
there is a control character, beside the tab, and the fields are separated by one. A request is written when a
connection to a server is there for it, before the server has it; the response when it is over. Tries of one request are
told one by one. What no server ever gets is written at the end: refused, or failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from model.decode.lines import FIELDS, SEPARATOR

Tree = dict[str, Any]

_TIME: Final = "(%s%9f)"
"""Nanoseconds since the epoch."""
_UNREACHED: Final = ("UF", "UH", "UO", "NR", "NC")
"""Why no server was asked: no connection, none there, too many, no route, no cluster."""
_FAILED: Final = (*_UNREACHED, "UC", "UR", "UT", "URX", "LH", "UMSDR", "DPE", "DT", "OM")
"""Why Envoy answers by itself; the others: a server that broke off, or was too slow; no HTTP; no memory."""
_NO_HTTP: Final = ("UPE",)
"""The server's answer is none. One that begins well has been told, with the code that the server gave it."""
_BAD_GATEWAY: Final = 502
LONGEST_URL: Final = 2048
LONGEST_HEADER: Final = 256

_CLIENT: Final = {"client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "client_port": "%DOWNSTREAM_REMOTE_PORT%"}
_SERVER: Final = {"server": "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "server_port": "%UPSTREAM_REMOTE_PORT%"}
_WANTED: Final = {"server": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "server_port": "%DOWNSTREAM_LOCAL_PORT%"}


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
        _log(file, _all(_flags(_FAILED), _was_read(True)), _response(point, _WANTED)),
        _log(file, _all(_flags(_FAILED), _was_read(False)), _response(point, _WANTED) | {"url": ""}),
        _log(file, _all(_flags(_NO_HTTP), status_is("EQ", _BAD_GATEWAY)), _response(point, _WANTED)),
    ]


def exit_logs(point: str, file: str) -> list[Tree]:
    """For the connection manager: what policy refused when a backend was chosen, before that got anything."""
    not_before = {
        "metadata_filter": {
            "matcher": {
                "filter": "envoy.filters.http.rbac",
                "path": [{"key": "enforced_engine_result"}],
                "value": {"string_match": {"exact": "allowed"}},
            },
            "match_if_key_not_found": True,
        }
    }
    return [_log(file, _all(refused_by_policy(), not_before), _request(point, "Denied", {"server": "%UPSTREAM_HOST%"}))]


def refused_by_policy() -> Tree:
    """A filter on answers that say so."""
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": "response.code_details.startsWith('rbac_access_denied')",
            },
        }
    }


def _was_read(was: bool) -> Tree:
    """A filter on requests that were understood, or were none; of the latter nothing is known."""
    return {"header_filter": {"header": {"name": ":scheme", "present_match": True, "invert_match": not was}}}


def _flags(flags: Sequence[str]) -> Tree:
    return {"response_flag_filter": {"flags": list(flags)}}


def status_is(operator: str, number: int) -> Tree:
    """A filter on the status of the answer."""
    comparison = {"op": operator, "value": {"default_value": number, "runtime_key": "access_log.status"}}
    return {"status_code_filter": {"comparison": comparison}}


def _request(point: str, verdict: str, server: Tree) -> Tree:
    agent = {"user_agent": f"%REQ(USER-AGENT):{LONGEST_HEADER}%"}
    return _record("Request", point, verdict, server) | {"time": f"%START_TIME{_TIME}%"} | agent


def _response(point: str, server: Tree) -> Tree:
    about = {"time": f"%EMIT_TIME{_TIME}%", "code": "%RESPONSE_CODE%"}
    return _record("Response", point, "Forwarded", server) | about


def _record(kind: str, point: str, verdict: str, server: Tree) -> Tree:
    return {
        **_CLIENT,
        **server,
        "type": kind,
        "began": f"%START_TIME{_TIME}%",
        "observation_point": point.capitalize(),
        "verdict": verdict,
        "method": "%REQ(:METHOD)%",
        "url": f"%REQ(:SCHEME)%://%REQ(:AUTHORITY):{LONGEST_HEADER}%%REQ(:PATH):{LONGEST_URL}%",
        "protocol": "%PROTOCOL%",
        "request_id": f"%REQ(X-REQUEST-ID):{LONGEST_HEADER}%",
        "traceparent": f"%REQ(TRACEPARENT):{LONGEST_HEADER}%",
    }


def _all(*filters: Tree) -> Tree:
    return {"and_filter": {"filters": list(filters)}}


def _log(file: str, chosen: Tree, record: Tree) -> Tree:
    line = SEPARATOR.join(record.get(name, "") for name in FIELDS)
    return {
        "name": "envoy.access_loggers.file",
        "filter": chosen,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": file,
            "log_format": {"text_format_source": {"inline_string": f"{line}\n"}, "omit_empty_values": True},
        },
    }
