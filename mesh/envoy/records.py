"""Requests and responses as Envoy tells them: logs of a module of ours, which it loads.

In:        the observation point; the folder in which the module keeps records until they are read.
Out:       access logs for Envoy's configuration.
Elsewhere: module/ decides what is told, and writes it; carrier.py brings it to the observer.

A request is told when a connection to a server is there for it, before the server has it; the response when it is over.
Tries of one request are told one by one. What no server ever gets is told at the end: refused, or failed.

Texts that Envoy makes by itself cost 13 us for each request; the module's two records 0.8 us, and 3 to 4 us while all
that serves requests shares the processors' caches.
"""

from __future__ import annotations

from typing import Any, Final

from mesh.envoy import module

Tree = dict[str, Any]

_TYPES: Final = "type.googleapis.com/"
_LOG: Final = f"{_TYPES}envoy.extensions.access_loggers.dynamic_modules.v3.DynamicModuleAccessLog"


def upstream_logs(point: str, folder: str) -> list[Tree]:
    """For the router: each try at a server, and how it ended."""
    return [_log("upstream", point, folder)]


def downstream_logs(point: str, folder: str) -> list[Tree]:
    """For the connection manager: what Envoy answered by itself."""
    return [_log("downstream", point, folder)]


def exit_logs(point: str, folder: str) -> list[Tree]:
    """For the connection manager: what policy refused when a backend was chosen, before that got anything."""
    return [_log("exit", point, folder)]


def connection_logs(point: str, folder: str) -> list[Tree]:
    """For a listener: connections on which nobody looks for requests, and which policy refused."""
    return [_log("connection", point, folder)]


def refused_by_policy() -> Tree:
    """A filter on answers that say so."""
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": f"{_TYPES}envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": "response.code_details.startsWith('rbac_access_denied')",
            },
        }
    }


def status_is(operator: str, number: int) -> Tree:
    """A filter on the status of the answer."""
    comparison = {"op": operator, "value": {"default_value": number, "runtime_key": "access_log.status"}}
    return {"status_code_filter": {"comparison": comparison}}


def _log(kind: str, point: str, folder: str) -> Tree:
    """`kind` is one that module/records.c knows."""
    return {
        "name": "envoy.access_loggers.dynamic_modules",
        "typed_config": {
            # The Python package has no definition of the message itself.
            "@type": f"{_TYPES}xds.type.v3.TypedStruct",
            "type_url": _LOG,
            "value": {
                # Never unloaded: what it has open is there for as long as the process.
                "dynamic_module_config": {"name": module.NAME, "do_not_close": True},
                "logger_name": kind,
                "logger_config": {
                    "@type": f"{_TYPES}google.protobuf.StringValue",
                    "value": f"{point.capitalize()}:{folder}",
                },
            },
        },
    }
