"""Listeners of a CiliumEnvoyConfig: where they listen, and in whose name they talk to backends.

In:        a Listener message with full names.
Out:       the same message, completed.
Elsewhere: clusters.py binds everything that is not said in a pod's name to the node's ingress address.

A pod of this node is still itself behind the listener: its address is the source towards the backend, and the mark says
to the kernel that the pod's egress policy is to judge that connection. So each chain of filters comes twice, once for
the addresses of this node's pods. Where no HTTP is spoken, a listener keeps all addresses or none: all, where nobody
from outside can come, to whom backends would answer past the proxy.

Source: spec/mesh.md section 2; spec/datapath.md section 2 (marks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, Final

from mesh.envoyconfig import messages
from mesh.envoyconfig.naming import Source

MARK_UPSTREAM: Final = 0x0900
"""Towards a backend, in the name of a pod of this node, whose policy judges then, or of the node's ingress address. One
for both: Envoy sets the mark of a cluster after that of a filter."""
MARK_LISTENER: Final = 0x0B00
"""Of the listener, so towards its clients."""

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_ROUTER: Final = "envoy.filters.http.router"
_KNOWN_FILTERS: Final = {
    _ROUTER: "envoy.extensions.filters.http.router.v3.Router",
    "envoy.filters.http.grpc_web": "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    "envoy.filters.http.grpc_stats": "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.filters.http.cors": "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.filters.http.fault": "envoy.extensions.filters.http.fault.v3.HTTPFault",
}
"""HTTP filters that mean something without a configuration. Envoy itself no longer guesses it from the name."""
_TLS_INSPECTOR: Final = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
_ORIGINAL_DST: Final = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
_KEEP_ALL: Final = "envoy.extensions.filters.listener.original_src.v3.OriginalSrc"
_SOCKET_OPTION: Final = "envoy.config.core.v3.SocketOption"
_ORIGINAL_SRC: Final = "envoy.extensions.filters.http.original_src.v3.OriginalSrc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What the ingress endpoint's policy needs in a listener, as messages: mesh/envoy/gate.py says what they do."""

    entry_http: Any
    """HttpFilter for requests that come."""
    entry_tcp: Any
    """Filter for connections that come."""
    exit_http: tuple[Any, ...]
    """HttpFilters for requests to a chosen backend."""
    denial: Any
    """ResponseMapper: what clients are told."""
    exit_logs: tuple[Any, ...]
    """AccessLog messages that make flows of requests that are refused on the way out."""
    connection_logs: tuple[Any, ...] = ()
    """AccessLog messages that make flows of connections without requests that are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a translation has to know about the node and its Envoy."""

    port: Callable[[str], int]
    """Where the listener of this full name listens."""
    source: Source
    pod_ranges: tuple[Network, ...] = ()
    """Of this node's pods."""
    own: tuple[Address, ...] = ()
    """Addresses inside `pod_ranges` that are no pod's: the router's and the ingress address."""
    ingress: tuple[Address, ...] = ()
    """In whose name clients that are no pods of this node are served; none: the node's own address."""
    gate: Gate | None = None
    """Judges who is not served in a pod's name; None: nobody does."""
    downstream_logs: tuple[Any, ...] = ()
    """AccessLog messages that make flows of requests that Envoy answers by itself."""
    upstream_logs: tuple[Any, ...] = ()
    """AccessLog messages that make flows of requests to backends, one for each try."""


def complete(listener: Any, place: Place, *, keeps_source: bool = True, from_outside: bool = True) -> None:
    """Fill in what users leave out.

    keeps_source  whether clients that are pods of this node are themselves towards backends.
    from_outside  whether clients may come that are neither pods of this node nor the node itself.
    """
    if not listener.HasField("address"):
        port = place.port(listener.name)
        _listen(listener.address, "127.0.0.1", port)
        _listen(listener.additional_addresses.add().address, "::1", port)
        listener.transparent.value = True
        _find_destination(listener)
        # Connections that it takes have the mark: by that the kernel knows their packets.
        listener.socket_options.add().CopyFrom(messages.new(_SOCKET_OPTION, **mark_option(MARK_LISTENER)))
    chains = list(listener.filter_chains)
    if listener.HasField("default_filter_chain"):
        chains.append(listener.default_filter_chain)
    for chain in chains:
        for one in chain.filters:
            _change_connection_manager(one, lambda manager: _complete_connection_manager(manager, place))
    _inspect_tls(listener)
    if place.pod_ranges and keeps_source:
        keeps_all = not from_outside and not all(map(_speaks_http, chains))
        if keeps_all:
            listener.listener_filters.append(_kept_addresses(port_of(listener)))
        _split(listener, place, keeps_all)
    if place.gate is not None:
        for chain in chains:
            _guard(chain, place.gate)
        if not all(map(_speaks_http, chains)):
            listener.access_log.extend(place.gate.connection_logs)


def _guard(chain: Any, gate: Gate) -> None:
    """Have policy asked, in a chain whose clients are served in the name of the ingress endpoint."""

    def guard(manager: Any) -> None:
        _put_first(manager.http_filters, [gate.entry_http])
        manager.access_log.extend(gate.exit_logs)
        manager.local_reply_config.mappers.append(gate.denial)
        for one in manager.http_filters:
            if one.typed_config.type_url == messages.URL + _KNOWN_FILTERS[_ROUTER]:
                router = messages.unpacked(one.typed_config)
                # The last one of ours sends the request, and no user's filter that does so stands behind it.
                kept = gate.exit_http[:-1] if router.upstream_http_filters else gate.exit_http
                _put_first(router.upstream_http_filters, kept)
                one.typed_config.Pack(router, deterministic=True)

    if not any(_change_connection_manager(one, guard) for one in chain.filters):
        _put_first(chain.filters, [gate.entry_tcp])


def _put_first(field: Any, added: Sequence[Any]) -> None:
    kept = list(field)
    del field[:]
    field.extend([*added, *kept])


def mark_option(mark: int) -> dict[str, Any]:
    """The socket option that marks every packet of a connection, in JSON form."""
    return {"description": "mark", "level": 1, "name": 36, "int_value": mark, "state": "STATE_PREBIND"}


def port_of(listener: Any) -> int:
    """The port of a completed listener, for redirection."""
    return int(listener.address.socket_address.port_value)


def _listen(address: Any, ip: str, port: int) -> None:
    address.socket_address.address = ip
    address.socket_address.port_value = port


def _find_destination(listener: Any) -> None:
    """Have Envoy look where a client wanted to go: it takes a listener's own address for that otherwise."""
    if not any(one.typed_config.type_url == messages.URL + _ORIGINAL_DST for one in listener.listener_filters):
        added = messages.new(
            "envoy.config.listener.v3.ListenerFilter",
            name="envoy.filters.listener.original_dst",
            typed_config={"@type": messages.URL + _ORIGINAL_DST},
        )
        _put_first(listener.listener_filters, [added])


def _change_connection_manager(network_filter: Any, change: Callable[[Any], None]) -> bool:
    if network_filter.typed_config.type_url != messages.URL + messages.HCM:
        return False
    manager = messages.unpacked(network_filter.typed_config)
    change(manager)
    network_filter.typed_config.Pack(manager, deterministic=True)
    return True


def _complete_connection_manager(manager: Any, place: Place) -> None:
    for one in manager.http_filters:
        if one.WhichOneof("config_type") is None and one.name in _KNOWN_FILTERS:
            one.typed_config.Pack(messages.new(_KNOWN_FILTERS[one.name]))
    if not manager.HasField("use_remote_address"):
        # Without it Envoy believes X-Forwarded-For, and a client could choose the address it is logged with.
        manager.use_remote_address.value = True
        manager.skip_xff_append = True
    manager.access_log.extend(place.downstream_logs)
    for one in manager.http_filters:
        if one.typed_config.type_url == messages.URL + _KNOWN_FILTERS[_ROUTER]:
            router = messages.unpacked(one.typed_config)
            router.upstream_log.extend(place.upstream_logs)
            router.upstream_log_options.flush_upstream_log_on_upstream_stream = True
            one.typed_config.Pack(router, deterministic=True)


def _inspect_tls(listener: Any) -> None:
    """Add what reads the server name, when a chain asks for it."""
    matches = [chain.filter_chain_match for chain in listener.filter_chains]
    wanted = any(one.server_names or one.transport_protocol or one.application_protocols for one in matches)
    have = any(one.typed_config.type_url == messages.URL + _TLS_INSPECTOR for one in listener.listener_filters)
    if wanted and not have:
        added = listener.listener_filters.add(name="envoy.filters.listener.tls_inspector")
        added.typed_config.Pack(messages.new(_TLS_INSPECTOR))


def _speaks_http(chain: Any) -> bool:
    return any(one.typed_config.type_url == messages.URL + messages.HCM for one in chain.filters)


def _kept_addresses(port: int) -> Any:
    """Everybody's address but of those who have come to the listener's own port: a process of the node has that from
    its socket, and the address of the loopback device, to which no backend could answer."""
    return messages.new(
        "envoy.config.listener.v3.ListenerFilter",
        name="envoy.filters.listener.original_src",
        typed_config={"@type": messages.URL + _KEEP_ALL, "mark": MARK_UPSTREAM},
        filter_disabled={"destination_port_range": {"start": port, "end": port + 1}},
    )


def _split(listener: Any, place: Place, keeps_all: bool) -> None:
    """For each chain one more, for this node's pods, if it keeps their addresses: `keeps_all`, or it speaks HTTP."""
    for chain in list(listener.filter_chains):
        match = chain.filter_chain_match
        wanted = [_network(one) for one in match.source_prefix_ranges] or None
        local = _common(place.pod_ranges, wanted)
        if local and _in_pods_name(listener, chain, local, keeps_all):
            rest = [one for one in wanted or () if not any(_covers(pods, one) for pods in place.pod_ranges)]
            others = rest if wanted else [ip_network("0.0.0.0/0"), ip_network("::/0")]
            others += _common([ip_network(one) for one in place.own], wanted)
            del match.source_prefix_ranges[:]
            _add_ranges(match, others)
    if listener.HasField("default_filter_chain"):
        _in_pods_name(listener, listener.default_filter_chain, place.pod_ranges, keeps_all)


def _in_pods_name(listener: Any, chain: Any, local: Iterable[Network], keeps_all: bool) -> bool:
    twin = type(chain)()
    twin.CopyFrom(chain)
    changed = [_change_connection_manager(one, _keep_address) for one in twin.filters]
    if not any(changed) and not keeps_all:
        return False
    if twin.name:
        twin.name += "-pods"
    del twin.filter_chain_match.source_prefix_ranges[:]
    _add_ranges(twin.filter_chain_match, local)
    listener.filter_chains.append(twin)
    return True


def _keep_address(manager: Any) -> None:
    """Towards backends with the client's address. That has to be the real one, not what a header says."""
    manager.use_remote_address.value = True
    manager.xff_num_trusted_hops = 0
    del manager.original_ip_detection_extensions[:]
    kept = list(manager.http_filters)
    at = next((number for number, one in enumerate(kept) if one.name == _ROUTER), len(kept))
    original = type(manager.http_filters.add())(name="envoy.filters.http.original_src")
    original.typed_config.Pack(messages.new(_ORIGINAL_SRC, mark=MARK_UPSTREAM))
    del manager.http_filters[:]
    manager.http_filters.extend([*kept[:at], original, *kept[at:]])


def _network(range: Any) -> Network:
    return ip_network(f"{range.address_prefix}/{range.prefix_len.value}", strict=False)


def _covers(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _common(ones: Iterable[Network], others: Sequence[Network] | None) -> list[Network]:
    """Where both are; None stands for everything."""
    if others is None:
        return list(ones)
    return [
        one if _covers(other, one) else other
        for one in ones
        for other in others
        if _covers(one, other) or _covers(other, one)
    ]


def _add_ranges(match: Any, ranges: Iterable[Network]) -> None:
    for one in ranges:
        added = match.source_prefix_ranges.add(address_prefix=str(one.network_address))
        added.prefix_len.value = one.prefixlen
