"""The messages by which listeners of CiliumEnvoyConfigs ask the ingress endpoint's policy.

In:        where a node's Envoy has the contents of filters, and its records.
Out:       a Gate for listeners.py.
Elsewhere: mesh/envoy/gate.py makes the contents; mesh/envoy/records.py the records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mesh.envoy import gate, records
from mesh.envoy.listeners import DENIED_BODY
from mesh.envoy.node import EnvoyNode
from mesh.envoyconfig import messages
from mesh.envoyconfig.listeners import Gate

_NETWORK: Final = "envoy.extensions.filters.network.http_connection_manager.v3"
_CODEC: Final = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
ACCESS_LOG: Final = "envoy.config.accesslog.v3.AccessLog"


Contents = Callable[[str, str], dict[str, Any]]
"""What a filter holds, or where Envoy finds it: the members of a filter beside its name, from that and the type."""


def discovered(envoy: EnvoyNode) -> Contents:
    """From files that are written apart from listeners."""

    def found(name: str, kind: str) -> dict[str, Any]:
        return {"config_discovery": {"config_source": envoy.filter_source(name), "type_urls": [messages.URL + kind]}}

    return found


def gate_of(contents: Contents, point: str, folder: str) -> Gate:
    """The gate; requests are told in `folder`, as observed at `point`."""

    def http(name: str, members: dict[str, Any]) -> Any:
        return messages.new(f"{_NETWORK}.HttpFilter", name=name, **members)

    codec = http("envoy.filters.http.upstream_codec", {"typed_config": {"@type": messages.URL + _CODEC}})
    return Gate(
        entry_http=http(gate.ENTRY_HTTP, contents(gate.ENTRY_HTTP, gate.HTTP_RBAC)),
        entry_tcp=messages.new(
            "envoy.config.listener.v3.Filter", name=gate.ENTRY_TCP, **contents(gate.ENTRY_TCP, gate.TCP_RBAC)
        ),
        exit_http=(http(gate.EXIT_HTTP, contents(gate.EXIT_HTTP, gate.HTTP_RBAC)), codec),
        denial=messages.new(
            f"{_NETWORK}.ResponseMapper",
            filter=records.refused_by_policy(),
            body={"inline_string": DENIED_BODY},
            body_format_override={
                "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
                "content_type": "text/plain",
            },
        ),
        exit_logs=tuple(messages.new(ACCESS_LOG, **one) for one in records.exit_logs(point, folder)),
        connection_logs=tuple(messages.new(ACCESS_LOG, **one) for one in records.connection_logs(point, folder)),
    )
