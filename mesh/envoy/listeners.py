"""The listeners that policies need, and the clusters behind them.

In:        the ports that the kernel sends packets to, where files are, the records' too.
Out:       Listener and Cluster resources; they never change while an Envoy runs, so no connection is ever drained.
Elsewhere: matching.py makes what changes, which files.py hands to Envoy as filters of their own.

Packets come with the address that the client wanted; connections to backends go there, from the client's own address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh.envoy import records

Tree = dict[str, Any]

EGRESS_MARK: Final = 0x0B00
INGRESS_MARK: Final = 0x0A00
DENIED_BODY: Final = "Access denied\r\n"
LOOPBACKS: Final = ("127.0.0.1", "::1")
"""Where the kernel looks for listeners of proxies."""
FOREVER: Final = "0s"
CONNECT_TIMEOUT: Final = "5s"
IDLE_UPSTREAM: Final = "60s"
MAX_PENDING: Final = 1_000_000
"""For limits that Envoy would otherwise set at 1024: who may ask how much is not this proxy's business."""

_SOL_SOCKET: Final = 1
_SO_MARK: Final = 36

FILTERS: Final = "envoy.extensions.filters."
TYPE: Final = "type.googleapis.com/"


@dataclass(frozen=True, slots=True)
class Direction:
    """One side of policy."""

    egress: bool

    @property
    def name(self) -> str:
        return "egress" if self.egress else "ingress"

    @property
    def mark(self) -> int:
        return EGRESS_MARK if self.egress else INGRESS_MARK


DIRECTIONS: Final = (Direction(True), Direction(False))


def typed(name: str, message: str, **fields: Any) -> Tree:
    """An extension's configuration."""
    return {"name": name, "typed_config": {"@type": TYPE + message, **fields}}


def filter_name(parser: str, direction: Direction) -> str:
    """The name of the filter that holds what policies allow."""
    return f"policy-{parser}-{direction.name}"


def changes_name(direction: Direction) -> str:
    """The name of the filter that changes headers of requests."""
    return f"headers-{direction.name}"


def http_listener(
    direction: Direction, port: int, filters: Mapping[str, Tree], folder: str, addresses: Sequence[str] = LOOPBACKS
) -> Tree:
    """Judges requests. `filters` say where the contents of filters are found, by the filters' names."""
    judge, change = filter_name("http", direction), changes_name(direction)
    manager = typed(
        "envoy.filters.network.http_connection_manager",
        f"{FILTERS}network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=filter_name("http", direction),
        codec_type="AUTO",
        route_config=_routes(direction),
        http_filters=[
            _discovered(judge, filters[judge], f"{FILTERS}http.rbac.v3.RBAC"),
            _discovered(change, filters[change], f"{FILTERS}http.lua.v3.Lua", f"{FILTERS}http.rbac.v3.RBAC"),
            typed(
                "envoy.filters.http.router",
                f"{FILTERS}http.router.v3.Router",
                upstream_log=records.upstream_logs(direction.name, folder),
                upstream_log_options={"flush_upstream_log_on_upstream_stream": True},
            ),
        ],
        access_log=records.downstream_logs(direction.name, folder),
        # The address of a client is known and kept; who else is in a header is not of interest.
        use_remote_address=True,
        skip_xff_append=True,
        preserve_external_request_id=True,
        # What policies match is what was sent.
        normalize_path=False,
        merge_slashes=False,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        http_protocol_options={"accept_http_10": True},
        http2_protocol_options={"allow_connect": True},
        upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
        stream_idle_timeout=FOREVER,
        local_reply_config={
            "mappers": [
                {
                    "filter": records.status_is("EQ", 403),
                    "body": {"inline_string": DENIED_BODY},
                    "body_format_override": {
                        "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
                        "content_type": "text/plain",
                    },
                }
            ]
        },
    )
    return _listener("http", direction, port, addresses, [], [manager])


def tls_listener(
    direction: Direction, port: int, filters: Mapping[str, Tree], addresses: Sequence[str] = LOOPBACKS
) -> Tree:
    """Judges by the name that a TLS client asks for; what is said stays between client and server."""
    judge = filter_name("tls", direction)
    inspector = typed("envoy.filters.listener.tls_inspector", f"{FILTERS}listener.tls_inspector.v3.TlsInspector")
    proxy = typed(
        "envoy.filters.network.tcp_proxy",
        f"{FILTERS}network.tcp_proxy.v3.TcpProxy",
        stat_prefix=filter_name("tls", direction),
        cluster=direction.name,
        idle_timeout="3600s",
        # Not before it is known that the client may.
        upstream_connect_mode="ON_DOWNSTREAM_DATA",
        max_early_data_bytes=65536,
    )
    judged = _discovered(judge, filters[judge], f"{FILTERS}network.rbac.v3.RBAC")
    return _listener("tls", direction, port, addresses, [inspector], [judged, proxy])


def cluster(direction: Direction) -> Tree:
    """The servers that clients wanted: wherever a packet was going."""
    return {
        "name": direction.name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": CONNECT_TIMEOUT,
        "cleanup_interval": IDLE_UPSTREAM,
        # As without a proxy: who connects anew gets a new connection to the server, and judged by its policy of today.
        "connection_pool_per_downstream_connection": True,
        "circuit_breakers": {
            "thresholds": [
                dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), MAX_PENDING)
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": IDLE_UPSTREAM},
                "use_downstream_protocol_config": {
                    "http_protocol_options": {},
                    "http2_protocol_options": {"allow_connect": True},
                },
            }
        },
    }


def mark(number: int) -> Tree:
    """The socket option by which the kernel knows what a proxy sends."""
    return {"level": _SOL_SOCKET, "name": _SO_MARK, "int_value": number, "state": "STATE_PREBIND"}


def judging_filter(parser: str, direction: Direction, matcher: Tree) -> Tree:
    """The filter that holds what policies allow."""
    where = "network" if parser == "tls" else "http"
    named = {"stat_prefix": f"{filter_name(parser, direction)}."} if parser == "tls" else {}
    return {"@type": f"{TYPE}{FILTERS}{where}.rbac.v3.RBAC", "matcher": matcher, **named}


def _listener(
    parser: str, direction: Direction, port: int, addresses: Sequence[str], first: list[Tree], then: list[Tree]
) -> Tree:
    here, *more = ({"socket_address": {"address": address, "port_value": port}} for address in addresses)
    return {
        "name": filter_name(parser, direction),
        "address": here,
        "additional_addresses": [{"address": one} for one in more],
        "transparent": True,
        "traffic_direction": "OUTBOUND" if direction.egress else "INBOUND",
        # Connections that it takes have its mark: by that the kernel knows their packets.
        "socket_options": [mark(direction.mark)],
        "listener_filters": [
            typed("envoy.filters.listener.original_dst", f"{FILTERS}listener.original_dst.v3.OriginalDst"),
            typed(
                "envoy.filters.listener.original_src",
                f"{FILTERS}listener.original_src.v3.OriginalSrc",
                mark=direction.mark,
            ),
            *first,
        ],
        # A client that waits for the server to speak is no TLS client.
        "continue_on_listener_filters_timeout": True,
        "filter_chains": [{"filters": then}],
    }


def _routes(direction: Direction) -> Tree:
    target = {
        "cluster": direction.name,
        "timeout": FOREVER,
        "max_stream_duration": {"grpc_timeout_header_max": FOREVER},
    }
    routes: Iterable[Tree] = (
        {"match": {"connect_matcher": {}}, "route": target},
        {"match": {"prefix": "/"}, "route": target},
    )
    return {
        "name": direction.name,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": list(routes)}],
        "validate_clusters": False,
    }


def _discovered(name: str, source: Tree, *types: str) -> Tree:
    return {"name": name, "config_discovery": {"config_source": source, "type_urls": [TYPE + one for one in types]}}
