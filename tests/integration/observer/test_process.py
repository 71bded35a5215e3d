"""The observer as a process: flags, sockets, signals, and one line for what is in the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from model.events import EventBatch
from observer.recording import Recording
from proto.flow import flow_pb2
from proto.observer import observer_pb2, observer_pb2_grpc
from proto.peer import peer_pb2, peer_pb2_grpc
from tests.support.batches import read_golden
from tests.support.certificates import Authority
from tests.support.process import ROOT, Process, observer_process
from tests.support.recordings import paced, write_recording
from tests.support.waiting import eventually

ObserverStub: Any = observer_pb2_grpc.ObserverStub
PeerStub: Any = peer_pb2_grpc.PeerStub
ALL = observer_pb2.GetFlowsRequest()


def channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address.replace("unix://", "unix:"))


def get_flows(address: str, request: observer_pb2.GetFlowsRequest = ALL) -> list[observer_pb2.GetFlowsResponse]:
    with channel(address) as one:
        return list(ObserverStub(one).GetFlows(request, timeout=20))


@pytest.fixture(scope="module")
def recording(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of golden/bench, with proxy records."""
    events, records = read_golden(golden / "bench", "bench-mix")
    state = (golden / "events" / "getters.json").read_bytes()
    lines = [json.dumps(record).encode() for record in records]
    path = tmp_path_factory.mktemp("recording") / "bench.flows"
    return write_recording(path, paced(events, state, per_second=4000, seconds=0.5, records=lines))


def test_a_recording_is_served_as_if_it_happened_now(recording: Path, tmp_path: Path) -> None:
    before = time.time()
    with observer_process(tmp_path, "--replay", str(recording), "--replay-speed", "0") as (process, address):
        process.wait_for("replay ended")
        flows = get_flows(address)
        with channel(address) as one:
            status = ObserverStub(one).ServerStatus(observer_pb2.ServerStatusRequest())
            namespaces = ObserverStub(one).GetNamespaces(observer_pb2.GetNamespacesRequest()).namespaces
    assert len(flows) == 2000 + 125
    assert all(one.node_name == "kind-worker" for one in flows)
    assert min(one.time.seconds for one in flows) >= int(before)
    assert sum(one.flow.Type == flow_pb2.L7 for one in flows) == 125
    assert any(one.flow.source.pod_name for one in flows)
    assert "kubernetes.io/os=linux" in flows[0].flow.node_labels
    assert status.num_flows == status.seen_flows == 2125
    assert len(namespaces) > 10


def test_a_recording_of_a_replay_holds_the_same(recording: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.flows"
    flags = ["--replay", str(recording), "--replay-speed", "0", "--record", str(copy)]
    with observer_process(tmp_path, *flags) as (process, address):
        process.wait_for("replay ended")
        flows = get_flows(address)
    with copy.open("rb") as file:
        again = Recording(file)
        assert sum(len(item) for item in again if isinstance(item, EventBatch)) == 2000
        assert again.cut is None
    with observer_process(tmp_path, "--replay", str(copy), "--replay-speed", "0") as (process, address):
        process.wait_for("replay ended")
        assert [one.flow.IP.source for one in get_flows(address)] == [one.flow.IP.source for one in flows]


def test_a_cut_recording_is_served_up_to_the_cut(recording: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.flows"
    cut.write_bytes(recording.read_bytes()[:-5000])
    with observer_process(tmp_path, "--replay", str(cut), "--replay-speed", "0") as (process, address):
        process.wait_for("replay ended")
        assert 1000 < len(get_flows(address)) < 2125
        lines = [line for line in process.log.read_text().splitlines() if "recording ends early" in line]
    assert len(lines) == 1
    assert "cut off at byte" in lines[0]


def test_unix_and_tcp_are_served_at_once(recording: Path, tmp_path: Path) -> None:
    listen = f"unix://{tmp_path}/o.sock,127.0.0.1:0"
    flags = ["--replay", str(recording), "--replay-speed", "0", "--insecure"]
    with observer_process(tmp_path, *flags, listen=listen) as (process, _):
        process.wait_for("replay ended")
        addresses = [
            line.split("address=")[1].split()[0] for line in process.log.read_text().splitlines() if "address=" in line
        ]
        assert [len(get_flows(address)) for address in addresses] == [2125, 2125]


def test_tcp_has_tls_and_peers_hear_the_name_to_expect(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server", "127.0.0.1", "n1.default.hubble-grpc.cilium.io")
    flags = ["--tls-cert-file", pair.cert, "--tls-key-file", pair.key, "--node-name", "n1"]
    with observer_process(tmp_path, *flags, listen="127.0.0.1:0") as (_, address):
        credentials = grpc.ssl_channel_credentials(Path(authority.ca).read_bytes())
        with grpc.secure_channel(address, credentials) as one:
            assert list(ObserverStub(one).GetFlows(ALL, timeout=10)) == []
            peer = next(PeerStub(one).Notify(peer_pb2.NotifyRequest(), timeout=10))
        assert (peer.name, peer.address) == ("n1", address)
        assert peer.tls.server_name == "n1.default.hubble-grpc.cilium.io"


def test_l7_records_come_through_their_socket_and_broken_ones_are_counted(golden: Path, tmp_path: Path) -> None:
    _, records = read_golden(golden / "bench", "bench-mix")
    path = tmp_path / "records.sock"
    state = str(golden / "events" / "getters.json")
    with observer_process(tmp_path, "--records-socket", str(path), "--state-file", state) as (_, address):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"{broken\n[]\n" + json.dumps(records[0]).encode(), str(path))
            sender.sendto(b'{"type": 2, "message": {"time": "2026-01-15T10:00:00Z"}}', str(path))
        eventually(lambda: len(get_flows(address)) == 1)
        (one,) = get_flows(address)
        assert one.flow.Type == flow_pb2.L7
        assert one.flow.source.namespace
        with channel(address) as other:
            (event,) = list(ObserverStub(other).GetAgentEvents(observer_pb2.GetAgentEventsRequest()))
        assert event.agent_event.type == flow_pb2.AGENT_STARTED


def test_the_state_file_gives_the_name_and_changes_reach_peers(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"node_name": "n1", "peers": [{"name": "n2", "address": "10.0.0.2:4244"}]}))
    with observer_process(tmp_path, "--state-file", str(state)) as (_, address), channel(address) as one:
        notifications = PeerStub(one).Notify(peer_pb2.NotifyRequest(), timeout=10)
        told = {next(notifications).name: None for _ in range(2)}
        assert set(told) == {"n1", "n2"}
        new = tmp_path / "new.json"
        new.write_text(json.dumps({"node_name": "n1"}))
        os.replace(new, state)
        change = next(notifications)
        assert (change.name, change.type) == ("n2", peer_pb2.PEER_DELETED)
        notifications.cancel()


def test_sighup_reads_the_state_again(tmp_path: Path) -> None:
    with observer_process(tmp_path, "--state-file", str(tmp_path / "state.json")) as (process, _):
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for("reloading")


def test_sigterm_ends_followers_and_the_process_and_removes_the_socket(tmp_path: Path) -> None:
    with observer_process(tmp_path) as (process, address), channel(address) as one:
        stream = ObserverStub(one).GetFlows(observer_pb2.GetFlowsRequest(follow=True))
        stream.initial_metadata()
        begun = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - begun < 5
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert not (tmp_path / "observer.sock").exists()


def test_the_socket_of_a_killed_observer_is_taken_over_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    with observer_process(tmp_path) as (first, _):
        assert run_to_failure("--listen", f"unix://{tmp_path}/observer.sock").endswith(
            "another process serves there; stop it, or choose another path"
        )
        first.stop(signal.SIGKILL)
        with observer_process(tmp_path) as (_, address):
            assert get_flows(address) == []


def run_to_failure(*flags: str) -> str:
    """Run an observer that cannot start; returns its one line."""
    command = [sys.executable, "-m", "observer", "--events", "none", "--state-file", "", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("flowscope: ")]
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_what_is_in_the_way_is_told_in_one_line_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases: list[tuple[list[str], str]] = [
            (["--listen", f"127.0.0.1:{port}", "--insecure"], "the port is taken; stop the process"),
            (["--listen", "127.0.0.1:0"], "without TLS"),
            (["--listen", f"unix://{tmp_path}/nowhere/o.sock"], "does not exist; create it"),
            (["--listen", f"unix://{tmp_path}/file"], "a file is in the way"),
            (["--ring-flows", "4096"], "one less than a power of two"),
            (["--replay", str(tmp_path / "file")], "make one with --record"),
            (["--record", "/nowhere/r"], "choose a file in a writable folder"),
            (["--events", "magic"], "set --events to kernel or none"),
            (["--tls-cert-file", "x"], "TLS needs both"),
            (["--peers", "nonsense"], "is not name=address"),
            (["--ring-flows", "many"], "expected int, got 'many'"),
        ]
        for flags, text in cases:
            listen = [] if "--listen" in flags else ["--listen", f"unix://{tmp_path}/o.sock"]
            assert text in run_to_failure(*listen, *flags), flags


@pytest.mark.kernel
def test_a_datapath_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    line = run_to_failure("--listen", f"unix://{tmp_path}/o.sock", "--events", "kernel", "--pin-dir", str(tmp_path))
    assert "cannot read events" in line


def test_a_process_can_be_watched(tmp_path: Path) -> None:
    with observer_process(tmp_path) as (process, _):
        assert isinstance(process, Process)
        assert 20 < process.rss_mib() < 120
