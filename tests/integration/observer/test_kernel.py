"""The observer on real perf rings: every event arrives or is accounted for, the last one too."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from proto.flow import flow_pb2
from proto.observer import observer_pb2
from tests.integration.observer.test_process import ObserverStub, channel
from tests.support.clients import finish_client, start_client
from tests.support.emitter import emitter
from tests.support.process import observer_process

pytestmark = pytest.mark.kernel

FOLLOW = json.dumps({"follow": True})


def told(result: dict[str, Any]) -> int:
    """Events that a client got, or was told it missed."""
    return int(result["flows"]) + int(sum(result["lost"].values()))


def test_an_event_in_the_kernel_becomes_a_flow_at_once_also_the_last_before_silence(
    golden: Path, tmp_path: Path
) -> None:
    state = str(golden / "events" / "getters.json")
    with emitter(tmp_path) as kernel:
        flags = ["--events", "kernel", "--pin-dir", str(kernel.pin_dir), "--state-file", state]
        with observer_process(tmp_path, *flags) as (_, address), channel(address) as one:
            stream = ObserverStub(one).GetFlows(observer_pb2.GetFlowsRequest(follow=True), timeout=20)
            stream.initial_metadata()
            for _ in range(3):
                time.sleep(0.05)
                before = time.time()
                kernel.emit(1)
                response = next(stream)
                after = time.time()
                assert after - before < 0.5
                assert before <= response.time.seconds + response.time.nanos / 1e9 <= after
                assert response.flow.trace_observation_point == flow_pb2.TO_ENDPOINT
                assert response.flow.source.pod_name
                assert response.node_name == "kind-worker"
            stream.cancel()


def test_under_overload_what_is_delivered_and_what_is_lost_add_up(tmp_path: Path) -> None:
    with emitter(tmp_path) as kernel:
        flags = ["--events", "kernel", "--pin-dir", str(kernel.pin_dir), "--perf-buffer-kib", "256"]
        with observer_process(tmp_path, *flags, "--queue-events", "8192") as (process, address):
            client = start_client(address, "--request", FOLLOW, "--seconds", "30", "--quiet", "5")
            for _ in range(20):
                kernel.emit(50_000)
            result = finish_client(client)
            assert process.rss_mib() < 200
    assert told(result) == kernel.emitted
    assert result["flows"] < kernel.emitted
    assert result["lost"]["PERF_EVENT_RING_BUFFER"] > 0


def test_after_a_kill_events_resume_and_the_gap_is_the_kernels(tmp_path: Path) -> None:
    with emitter(tmp_path) as kernel:
        flags = ["--events", "kernel", "--pin-dir", str(kernel.pin_dir)]
        with observer_process(tmp_path, *flags) as (process, _):
            kernel.emit(10)
            process.popen.kill()
            process.popen.wait()
            kernel.emit(10)
            with observer_process(tmp_path, *flags) as (_, address):
                client = start_client(address, "--request", FOLLOW, "--seconds", "0.5")
                kernel.emit(7)
                assert finish_client(client)["flows"] == 7
