"""What the relay answers beside flows, its health, TLS on both sides, and the process as users start it."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from proto.observer import observer_pb2
from proto.relay import relay_pb2
from relay.config import RelayConfig
from relay.main import checked, serve
from rpc.client import Channel
from rpc.server import Server
from rpc.standard import message_class
from rpc.status import RpcError, Status
from rpc.tls import ClientTls, ServerTls, node_server_name
from service.failure import Failure
from tests.support.certificates import Authority
from tests.support.fake_nodes import FakeObserver, delivers, response
from tests.support.process import Process
from tests.support.relay_service import FLOWS, make_node, relaying, running
from tests.support.waiting import eventually_async

OBSERVER = "/observer.Observer"
HealthRequest = message_class("grpc.health.v1.HealthCheckRequest")
HealthResponse = message_class("grpc.health.v1.HealthCheckResponse")


async def ask_status(channel: Channel, headers: dict[str, str] | None = None) -> observer_pb2.ServerStatusResponse:
    request = observer_pb2.ServerStatusRequest()
    return await channel.unary(
        f"{OBSERVER}/ServerStatus", request, observer_pb2.ServerStatusResponse, timeout_s=5, headers=headers
    )


async def ask_health(channel: Channel, name: str = "") -> int:
    reply = await channel.unary("/grpc.health.v1.Health/Check", HealthRequest(service=name), HealthResponse)
    return int(reply.status)


async def test_the_status_is_the_sum_over_nodes_that_answer(tmp_path: Path) -> None:
    nodes = [make_node(tmp_path, name, delivers([])) for name in "abc"]
    nodes[1].observer.status.uptime_ns = 9 * 10**9

    async def fails(request: object, call: object) -> observer_pb2.ServerStatusResponse:
        raise RpcError(Status.INTERNAL, "oops")

    nodes[2].observer.ServerStatus = fails  # type: ignore[method-assign]
    peers = tuple(f"{node.observer.name}={node.address}" for node in nodes)
    headers: dict[str, str] = {}
    async with relaying(tmp_path, nodes, peers=(*peers, f"gone=unix://{tmp_path}/gone.sock")) as channel:
        await asyncio.sleep(0.05)
        status = await ask_status(channel, headers)
    assert (status.num_flows, status.max_flows, status.seen_flows, status.flows_rate) == (20, 8190, 40, 4.0)
    assert status.uptime_ns == 9 * 10**9
    assert status.version == "hubble-relay v1.19.4"
    assert (status.num_connected_nodes.value, status.num_unavailable_nodes.value) == (2, 2)
    assert sorted(status.unavailable_nodes) == ["c", "gone"]
    assert headers["hubble-relay-version"] == "1.19.4"


async def test_both_node_counters_are_present_also_when_they_are_zero(tmp_path: Path) -> None:
    async with relaying(tmp_path, [make_node(tmp_path, "a", delivers([]))]) as channel:
        status = await ask_status(channel)
    assert status.HasField("num_unavailable_nodes")
    assert status.num_unavailable_nodes.value == 0


async def test_nodes_are_listed_with_their_state(tmp_path: Path) -> None:
    node = make_node(tmp_path, "a", delivers([]))
    peers = (f"a={node.address}", f"gone=unix://{tmp_path}/gone.sock")
    async with relaying(tmp_path, [node], peers=peers) as channel:
        await asyncio.sleep(0.05)
        reply = await channel.unary(
            f"{OBSERVER}/GetNodes", observer_pb2.GetNodesRequest(), observer_pb2.GetNodesResponse
        )
    connected, gone = sorted(reply.nodes, key=lambda one: one.name)
    assert (connected.name, connected.address, connected.state) == ("a", node.address, relay_pb2.NODE_CONNECTED)
    assert (connected.version, connected.num_flows, connected.uptime_ns) == ("cilium a", 10, 5 * 10**9)
    assert connected.HasField("tls")
    assert (gone.state, gone.version, gone.HasField("tls")) == (relay_pb2.NODE_UNAVAILABLE, "", True)


async def test_namespaces_of_all_nodes_are_put_together(tmp_path: Path) -> None:
    nodes = [make_node(tmp_path, name, delivers([])) for name in "ab"]
    nodes[0].observer.namespaces = [("", "shop"), ("eu", "a")]
    nodes[1].observer.namespaces = [("", "bank"), ("", "shop")]
    async with relaying(tmp_path, nodes) as channel:
        reply = await channel.unary(
            f"{OBSERVER}/GetNamespaces", observer_pb2.GetNamespacesRequest(), observer_pb2.GetNamespacesResponse
        )
    assert [(one.cluster, one.namespace) for one in reply.namespaces] == [("", "bank"), ("", "shop"), ("eu", "a")]


@pytest.mark.parametrize("method", ["GetAgentEvents", "GetDebugEvents"])
async def test_events_of_nodes_are_not_implemented_as_in_hubble(tmp_path: Path, method: str) -> None:
    async with relaying(tmp_path, [make_node(tmp_path, "a", delivers([]))]) as channel:
        with pytest.raises(RpcError, match=f"code = Unimplemented desc = {method} not yet implemented"):
            await channel.unary(
                f"{OBSERVER}/{method}", observer_pb2.GetAgentEventsRequest(), observer_pb2.GetAgentEventsResponse
            )


async def test_health_follows_the_nodes_also_on_its_own_listener(tmp_path: Path) -> None:
    node = make_node(tmp_path, "a", delivers([]))
    health = f"unix://{tmp_path}/health.sock"
    async with relaying(tmp_path, [node], health_listen=health, health_check_s=0.05) as channel, Channel(health) as own:
        for one in (channel, own):
            assert await ask_health(one) == 1
            assert await ask_health(one, "hubble.server.Observer") == 1
        with pytest.raises(RpcError, match="NotFound"):
            await ask_health(own, "other")
        await node.kill()
        async with asyncio.timeout(5):
            while await ask_health(own) != 2:
                await asyncio.sleep(0.02)
        with pytest.raises(RpcError, match=r"unknown service observer\.Observer"):
            await ask_status(own)


async def test_a_relay_whose_peer_service_is_down_is_not_serving(tmp_path: Path) -> None:
    async with running(tmp_path, peer_service=f"unix://{tmp_path}/none.sock") as channel:
        assert await ask_health(channel) == 2


async def test_tls_and_mtls_on_both_sides(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    name = node_server_name("worker", "home")
    of_node, of_relay = authority.issue("node", name), authority.issue("relay", "relay.example")
    shown_to_node, shown_to_relay = authority.issue("relay-client"), authority.issue("user")
    node = Server([FakeObserver("worker", delivers([response("worker", 5, "flow")]))])
    address = await node.listen(
        "127.0.0.1:0", tls=ServerTls(cert_file=of_node.cert, key_file=of_node.key, client_ca_files=(authority.ca,))
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = RelayConfig(
        listen=(f"127.0.0.1:{port}",),
        health_listen="",
        peers=(f"home/worker={address}",),
        tls_hubble_server_ca_files=(authority.ca,),
        tls_hubble_client_cert_file=shown_to_node.cert,
        tls_hubble_client_key_file=shown_to_node.key,
        tls_relay_server_cert_file=of_relay.cert,
        tls_relay_server_key_file=of_relay.key,
        tls_relay_client_ca_files=(authority.ca,),
        drain_s=0.1,
    )
    stop = asyncio.Event()
    relay = asyncio.create_task(serve(config, stop, asyncio.Event()))
    await eventually_async(lambda: bool(node.connections))
    with_certificate = ClientTls(
        ca_files=(authority.ca,),
        cert_file=shown_to_relay.cert,
        key_file=shown_to_relay.key,
        server_name="relay.example",
    )
    async with Channel(f"127.0.0.1:{port}", tls=with_certificate) as channel:
        async with channel.stream(FLOWS, observer_pb2.GetFlowsRequest()) as stream:
            got = [one.flow.Summary async for one in stream.messages(observer_pb2.GetFlowsResponse)]
        assert "flow" in got
        reply = await channel.unary(
            f"{OBSERVER}/GetNodes", observer_pb2.GetNodesRequest(), observer_pb2.GetNodesResponse
        )
        assert (reply.nodes[0].tls.enabled, reply.nodes[0].tls.server_name) == (True, name)
    without = ClientTls(ca_files=(authority.ca,), server_name="relay.example")
    async with Channel(f"127.0.0.1:{port}", tls=without) as channel:
        with pytest.raises(RpcError, match="Unavailable"):
            await ask_status(channel)
    stop.set()
    await relay
    await node.close(0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "TLS towards nodes needs --tls-hubble-server-ca-files"),
        ({"peers": ("a=10.0.0.1",)}, "TLS towards nodes needs --tls-hubble-server-ca-files"),
        ({"peers": ("a=10.0.0.1",), "disable_client_tls": True}, "serving with TLS needs --tls-relay-server-cert-file"),
        ({"peers": ("a b",), "disable_client_tls": True, "disable_server_tls": True}, "peer 'a b' is not NAME=ADDRESS"),
        ({"peer_service": "host:99999", "disable_client_tls": True}, "peer service address 'host:99999'"),
        ({"peers": ("a=10.0.0.1",), "sort_buffer_len_max": 0}, "--sort-buffer-len-max must be above 0, got 0"),
        (
            {"peers": ("a=10.0.0.1",), "tls_hubble_server_ca_files": ("/none.pem",)},
            "cannot load cert '/none.pem': open /none.pem: no such file or directory",
        ),
    ],
)
async def test_settings_that_cannot_work_are_named_with_the_remedy(settings: dict[str, object], said: str) -> None:
    with pytest.raises(Failure) as caught:
        await serve(RelayConfig(**settings), asyncio.Event(), asyncio.Event())  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_without_any_node_the_observer_of_this_machine_is_asked() -> None:
    assert checked(RelayConfig()).peer_service.startswith("unix:///")
    assert checked(RelayConfig(peers=("a=10.0.0.1",))).peer_service == ""


async def test_the_process_starts_serves_and_stops_on_sigterm(tmp_path: Path) -> None:
    node = make_node(tmp_path, "a", delivers([response("a", 5, "flow")]))
    await node.start()
    arguments = ("relay", f"--listen=unix://{tmp_path}/r.sock", "--health-listen=", f"--peers=a={node.address}")
    flags = ("--disable-client-tls", "--disable-server-tls", "--drain-s=0.2")
    relay = Process([*arguments, *flags], tmp_path / "log")
    try:
        await asyncio.to_thread(relay.wait_for, "node connected")
        relay.popen.send_signal(signal.SIGHUP)
        await asyncio.to_thread(relay.wait_for, "dialling again")
        async with Channel(f"unix://{tmp_path}/r.sock") as channel:
            assert (await ask_status(channel)).num_connected_nodes.value == 1
    finally:
        assert await asyncio.to_thread(relay.stop) == 0
        assert node.server is not None
        await node.server.close(0)
    assert not (tmp_path / "r.sock").exists()


async def test_the_process_says_in_one_line_why_it_cannot_start(tmp_path: Path) -> None:
    relay = Process(["relay", "--peers=a=10.0.0.1"], tmp_path / "log")
    assert await asyncio.to_thread(relay.popen.wait, 20) == 1
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("flowscope: TLS towards nodes needs --tls-hubble-server-ca-files")
