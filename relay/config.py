"""Settings of the relay. Names follow Hubble's relay where it has the same setting."""

from __future__ import annotations

from dataclasses import dataclass

from service.settings import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig:
    """One relay."""

    listen: tuple[str, ...] = setting((":4245",), "addresses of the gRPC service: host:port or unix:///path")
    health_listen: str = setting(":4222", "address of the plain health service; empty: none")
    peer_service: str = setting(
        "", "Peer service that tells which nodes exist; empty, and no peers: the observer of this machine"
    )
    peers: tuple[str, ...] = setting((), "nodes to ask without a Peer service: NAME=ADDRESS or ADDRESS")
    cluster_name: str = setting("default", "cluster of the Peer service, part of its TLS server name")
    node_name: str = setting("", "name of this relay in what it says about nodes; empty: host name")
    retry_timeout_s: float = setting(30.0, "pause before the Peer service is asked again after it failed")
    dial_backoff_s: float = setting(1.0, "first pause before a node is dialled again; doubles up to dial-backoff-max-s")
    dial_backoff_max_s: float = setting(60.0, "longest pause before a node is dialled again")
    peer_check_s: float = setting(2.0, "how often a following client gets nodes that came or came back")
    health_check_s: float = setting(5.0, "how often the relay looks whether it is ready")
    call_timeout_s: float = setting(5.0, "what a node may take to answer about its status")
    sort_buffer_len_max: int = setting(65536, "flows that may wait in the merge, for each client")
    sort_buffer_drain_timeout_s: float = setting(1.0, "how long the merge waits for a node that says nothing")
    sort_disorder_s: float = setting(0.01, "how much out of order one node may deliver")
    client_buffer_mib: int = setting(64, "memory for what nodes sent and a client has not taken, for each client")
    error_window_s: float = setting(10.0, "equal errors of nodes within this time become one message")
    disable_client_tls: bool = setting(False, "talk to nodes without TLS")
    disable_server_tls: bool = setting(False, "serve without TLS")
    tls_hubble_client_cert_file: str = setting("", "certificate shown to nodes")
    tls_hubble_client_key_file: str = setting("", "its private key")
    tls_hubble_server_ca_files: tuple[str, ...] = setting((), "authorities of the nodes' certificates")
    tls_relay_server_cert_file: str = setting("", "certificate of this relay")
    tls_relay_server_key_file: str = setting("", "its private key")
    tls_relay_client_ca_files: tuple[str, ...] = setting((), "authorities of clients' certificates; turns on mTLS")
    drain_s: float = setting(5.0, "seconds given to open streams at shutdown")
    log_level: str = setting("info", "debug, info, warning or error")
    log_json: bool = setting(False, "log lines as JSON")
