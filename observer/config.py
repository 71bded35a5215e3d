"""Settings of the observer: flags, environment (FLOWSCOPE_OBSERVER_...) and the [observer] table of the file."""

from __future__ import annotations

from dataclasses import dataclass

from service.settings import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverConfig:
    """One node's observer."""

    listen: tuple[str, ...] = setting(
        ("unix:///run/flowscope/observer/observer.sock",),
        "addresses to serve on: unix:///path, host:port or :4244; TCP needs TLS files or --insecure",
    )
    tls_cert_file: str = setting("", "certificate (PEM) of the TCP listeners; read again when it changes")
    tls_key_file: str = setting("", "private key (PEM) of the certificate")
    tls_client_ca_files: tuple[str, ...] = setting((), "CA files; with any, clients need a certificate (mTLS)")
    insecure: bool = setting(False, "serve TCP without TLS")

    node_name: str = setting("", "name of the node; default: the state file's, else the host name")
    cluster_name: str = setting("default", "name of the cluster; put before the node's name unless it is default")
    state_file: str = setting(
        "/run/flowscope/state.json", "what the agent knows of this node; read again when it changes"
    )
    ring_flows: int = setting(65_535, "flows kept in memory: 2^k-1, at most 1048575")
    queue_events: int = setting(65_536, "events that may wait to be decoded; more are counted as lost")

    events: str = setting("kernel", "where events come from: kernel, or none (records and replay only)")
    pin_dir: str = setting(
        "", "folder of the datapath's pinned maps; default: /sys/fs/bpf/flowscope/<node>, without the cluster"
    )
    perf_buffer_kib: int = setting(2048, "perf ring of each CPU, KiB: 2^k times 4")
    records_socket: str = setting("", "unix datagram socket that takes L7 records and agent notifications")

    record: str = setting("", "file to record all input to; replaced at start")
    replay: str = setting("", "recording to take events from instead of the kernel")
    replay_speed: float = setting(1.0, "pace of the replay; 0: as fast as possible")
    replay_loops: int = setting(1, "how often to replay; 0: again and again")
    replay_period_s: float = setting(
        0.0, "seconds from lap to lap; equal periods keep replays of several nodes in step; 0: no pause, no step"
    )
    replay_original_times: bool = setting(False, "keep the recorded times instead of telling the present ones")

    advertise: str = setting("", "address that relays are told; default: the first address to serve on")
    peers: tuple[str, ...] = setting((), "other nodes that relays are told of, as name=address")

    drain_s: float = setting(5.0, "seconds given to open streams at shutdown")
    log_level: str = setting("info", "debug, info, warning or error")
    log_json: bool = setting(False, "log JSON lines")
