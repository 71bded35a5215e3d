"""The relay as a process: peers, services, health, from start to drain."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Callable
from typing import Final

import structlog

from relay.config import RelayConfig
from relay.cost import RelayCost
from relay.peers import Dialling, Peers, PeerWatch, listed_peer
from relay.service import VERSION, RelayColumns, RelayObserver
from rpc.health import SERVICE_NAMES, Health
from rpc.server import Server
from rpc.tls import ClientTls, ServerTls, TlsError, client_context
from service.failure import Failure

log = structlog.get_logger(component="relay")


LOCAL_OBSERVER: Final = "unix:///run/flowscope/observer/observer.sock"
"""The observer of this machine knows the other nodes; it is asked when nobody is named."""


async def serve(config: RelayConfig, stop: asyncio.Event, reload: asyncio.Event) -> None:
    """Run until `stop`; `reload` dials everything that is down at once.

    Raises: Failure for settings that do not go together, a port that is taken, unusable certificates.
    """
    config = checked(config)
    tls = client_tls(config)
    peers = Peers(Dialling(tls, config.dial_backoff_s, config.dial_backoff_max_s))
    watch = peer_watch(config, peers, tls)
    for text in config.peers:
        peers.upsert(listed_peer(text, tls is not None, config.cluster_name))
    health = Health(SERVICE_NAMES, serving=False)
    server = Server(
        [RelayObserver(config, peers), RelayColumns(config, peers), RelayCost(config, peers)],
        metadata={"hubble-relay-version": VERSION, "flowscope-columns": "1"},
        health=health,
    )
    plain = Server([], health=health, reflection=False)
    try:
        for address in config.listen:
            await server.listen(address, tls=server_tls(config), insecure=config.disable_server_tls)
        if config.health_listen:
            await plain.listen(config.health_listen, insecure=True)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(keep_health(health, ready_of(peers, watch), config.health_check_s), name="health"),
                tasks.create_task(hurry_on(reload, peers, watch), name="reload"),
            ]
            if watch is not None:
                running.append(tasks.create_task(watch.run(), name="peer service"))
            await stop.wait()
            log.info("stopping", drain_s=config.drain_s)
            await server.close(config.drain_s)
            await plain.close(0)
            for task in running:
                task.cancel()
    finally:
        await server.close(0)
        await plain.close(0)
        await peers.close()


def peer_watch(config: RelayConfig, peers: Peers, tls: ClientTls | None) -> PeerWatch | None:
    """Who follows the Peer service, if there is one. Raises: Failure for an address that leads nowhere."""
    if not config.peer_service:
        return None
    try:
        return PeerWatch(config, peers, tls)
    except ValueError as error:
        raise Failure(f"cannot reach the peer service {error}") from error


def checked(config: RelayConfig) -> RelayConfig:
    """The configuration with its gaps filled. Raises: Failure for what cannot work."""
    for name in ("sort_buffer_len_max", "sort_buffer_drain_timeout_s", "client_buffer_mib"):
        if getattr(config, name) <= 0:
            raise Failure(f"--{name.replace('_', '-')} must be above 0, got {getattr(config, name)}")
    return dataclasses.replace(
        config,
        node_name=config.node_name or socket.gethostname(),
        peer_service=config.peer_service or ("" if config.peers else LOCAL_OBSERVER),
    )


def client_tls(config: RelayConfig) -> ClientTls | None:
    """How nodes are checked; None: TLS is off. Raises: Failure."""
    if config.disable_client_tls:
        return None
    if not config.tls_hubble_server_ca_files:
        raise Failure(
            "TLS towards nodes needs --tls-hubble-server-ca-files; "
            "or give --disable-client-tls when nodes serve without TLS"
        )
    if bool(config.tls_hubble_client_cert_file) != bool(config.tls_hubble_client_key_file):
        raise Failure("--tls-hubble-client-cert-file and --tls-hubble-client-key-file go together")
    tls = ClientTls(
        ca_files=config.tls_hubble_server_ca_files,
        cert_file=config.tls_hubble_client_cert_file,
        key_file=config.tls_hubble_client_key_file,
    )
    try:
        client_context(tls)
    except TlsError as error:
        raise Failure(str(error)) from error
    return tls


def server_tls(config: RelayConfig) -> ServerTls | None:
    """The certificate of the relay; None: TLS is off. Raises: Failure."""
    if config.disable_server_tls:
        return None
    if not config.tls_relay_server_cert_file or not config.tls_relay_server_key_file:
        if all(address.startswith("unix:") for address in config.listen):
            return None
        raise Failure(
            "serving with TLS needs --tls-relay-server-cert-file and --tls-relay-server-key-file; "
            "or give --disable-server-tls"
        )
    return ServerTls(
        cert_file=config.tls_relay_server_cert_file,
        key_file=config.tls_relay_server_key_file,
        client_ca_files=config.tls_relay_client_ca_files,
    )


def ready_of(peers: Peers, watch: PeerWatch | None) -> Callable[[], bool]:
    """Is the relay of use: it hears of nodes, and can ask at least one."""
    return lambda: (watch is None or watch.connected) and any(one.usable for one in peers)


async def keep_health(health: Health, ready: Callable[[], bool], every_s: float) -> None:
    """Say every few seconds whether the relay is ready."""
    while True:
        health.set_all(ready())
        await asyncio.sleep(every_s)


async def hurry_on(reload: asyncio.Event, peers: Peers, watch: PeerWatch | None) -> None:
    """On each reload, do not wait out pauses."""
    while True:
        await reload.wait()
        reload.clear()
        log.info("dialling again")
        peers.hurry()
        if watch is not None:
            watch.hurry()
