"""A fast web server inside a namespace, and wrk to ask it.

In:        a namespace, a port.
Out:       Envoy that answers by itself; rates and latencies as wrk saw them.
Elsewhere: lab/servers has servers with content.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envoy

from tests.support.testnet import inside

ENVOY = Path(next(iter(envoy.__path__))) / "_bin" / "envoy"
TYPES = "type.googleapis.com/envoy.extensions.filters"
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}


@dataclass(frozen=True, slots=True)
class Told:
    """What wrk saw."""

    requests: int
    requests_per_s: float
    p50_us: float
    p99_us: float
    errors: int


@contextmanager
def serve_web(netns: str, port: int, address: str = "0.0.0.0") -> Iterator[None]:
    """Envoy with one worker, answering every request with 200 and a few bytes."""
    answer = {"direct_response": {"status": 200, "body": {"inline_string": "hello\n"}}}
    with _envoy(netns, _bootstrap(address, port, answer), port):
        yield


@contextmanager
def proxy_web(netns: str, port: int, upstream: tuple[str, int], concurrency: int = 1) -> Iterator[None]:
    """Envoy as a plain proxy: one listener, one cluster, the router, nothing else."""
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(*upstream)}}]}],
        },
    }
    config = _bootstrap("0.0.0.0", port, {"route": {"cluster": "upstream"}}, [cluster])
    with _envoy(netns, config, port, concurrency):
        yield


@contextmanager
def _envoy(netns: str, config: dict[str, Any], port: int, concurrency: int = 1) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "envoy.json"
        path.write_text(json.dumps(config))
        command = ["ip", "netns", "exec", netns, str(ENVOY), "-c", str(path), "--concurrency", str(concurrency)]
        command += ["--disable-hot-restart", "-l", "error"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _await_listening(netns, port)
            yield
        finally:
            process.kill()
            process.wait()


def wrk(netns: str, url: str, *, connections: int, seconds: int, headers: tuple[str, ...] = ()) -> Told:
    """Ask as fast as answers come, from one thread. Raises: RuntimeError when wrk does not run."""
    command = ["ip", "netns", "exec", netns, "wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency"]
    command += [word for header in headers for word in ("-H", header)]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=seconds + 30)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if rate is None:
        raise RuntimeError(f"wrk: {done.stdout} {done.stderr}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    lost = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    errors = int(bad[1]) if bad else 0
    errors += sum(map(int, lost.groups())) if lost else 0
    total = re.search(r"(\d+) requests in", done.stdout)
    return Told(
        int(total[1]) if total else 0,
        float(rate[1]),
        _percentile(done.stdout, 50),
        _percentile(done.stdout, 99),
        errors,
    )


def _percentile(text: str, which: int) -> float:
    found = re.search(rf"^\s+{which}%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
    return float(found[1]) * UNITS[found[2]] if found else 0.0


def _await_listening(netns: str, port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            inside(netns, lambda: socket.create_connection(("127.0.0.1", port), 0.2).close())
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nothing listens on port {port} in {netns}")


def _address(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _bootstrap(
    address: str, port: int, action: dict[str, Any], clusters: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    routes = [{"match": {"prefix": "/"}, **action}]
    manager = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "address": _address(address, port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": list(clusters)}}
