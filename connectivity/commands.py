"""`flowscope connectivity test`: what the word does.

In:        a parsed command line.
Out:       text for people, a JUnit file, exit code 1 when something failed.
Elsewhere: cli/commands/connectivity.py defines flags and help; runner.py runs the tests.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cli.command import Call
from connectivity import report
from connectivity.cluster import CLIENTS, ECHOES, NAMESPACE, ClusterView, World
from connectivity.runner import Runner
from connectivity.suite import TESTS, Test
from connectivity.telescope import Telescope
from connectivity.witness import Witness
from flowscope import Client, FlowscopeError
from lab.options import DEMO
from mesh.resources.manifests import parse_manifests
from service.failure import Failure


def test(call: Call) -> int:
    """`connectivity test`."""
    chosen = choose(_texts(call, "test"))
    if call.on("list"):
        print("\n".join(one.name for one in TESTS if one in chosen))
        return 0
    world = World(
        name=call.text("external-target").rstrip("."),
        address=call.text("external-ip"),
        other_address=call.text("external-other-ip"),
    )
    cluster = ClusterView(Path(call.text("run-dir")), world)
    try:
        outcomes = asyncio.run(_run(call, cluster, chosen))
    finally:
        cluster.close()
    if call.given("junit-file"):
        properties = dict(one.partition("=")[::2] for one in _texts(call, "junit-property"))
        _write(Path(call.text("junit-file")), report.junit(outcomes, properties))
    return 0 if all(one.ok for one in outcomes) else 1


def choose(patterns: Sequence[str]) -> list[Test]:
    """The tests whose names a pattern finds, and none that begins with `!` finds. Raises: Failure."""
    wanted: list[re.Pattern[str]] = []
    unwanted: list[re.Pattern[str]] = []
    for text in patterns:
        try:
            (unwanted if text.startswith("!") else wanted).append(re.compile(text.removeprefix("!")))
        except re.error as error:
            raise Failure(f"--test {text}: not a regular expression: {error}") from None
    found = [
        one
        for one in TESTS
        if (not wanted or any(pattern.search(one.name) for pattern in wanted))
        and not any(pattern.search(one.name) for pattern in unwanted)
    ]
    if not found:
        raise Failure(f"--test {' '.join(patterns)}: no test has such a name; see `flowscope connectivity test --list`")
    return found


async def _run(call: Call, cluster: ClusterView, chosen: Sequence[Test]) -> list[report.Outcome]:
    timeout_s = call.number("timeout") / 1e9
    say = _say
    if not call.on("no-flows") and cluster.aggregates:
        say("ℹ️  Monitor aggregation detected, will skip some flow validation steps\n")
    for line in _prepare(cluster, timeout_s):
        say(line + "\n")
    server = call.text("relay") or str(cluster.state.get("relay", ""))
    async with Client(server) as client:
        telescope = None if call.on("no-flows") else await _open(client)
        witness = Witness(cluster, timeout_s)
        say("🏃 Running tests...\n\n")
        outcomes = []
        try:
            for one in TESTS:
                if one not in chosen:
                    say(f"[=] Skipping Test [{one.name}]\n\n")
                    outcomes.append(report.Outcome(one.name, skipped=True))
                    continue
                say(f"[=] Test [{one.name}]\n")
                outcomes.append(await Runner(cluster, telescope, say, witness, timeout_s).run(one))
                say("\n")
        finally:
            if telescope is not None:
                await telescope.close()
    say(f"{report.closing(outcomes)}\n")
    return outcomes


async def _open(client: Client) -> Telescope | None:
    _say("🔭 Enabling Hubble telescope...\n")
    try:
        have, most = await Telescope.count(client)
    except FlowscopeError as error:
        _say(f"⚠️  Unable to contact Hubble Relay, disabling Hubble telescope and flow validation: {error}\n")
        return None
    _say(f"ℹ️  Hubble is OK, flows: {have}/{most}\n")
    telescope = Telescope(client)
    telescope.open()
    return telescope


def _prepare(cluster: ClusterView, timeout_s: float) -> Iterator[str]:
    """Wait for everything that the tests use, naming it. Raises: Failure."""
    where = f"[kind-{cluster.name}]"
    if not cluster.store.find("Deployment", NAMESPACE):
        yield f"✨ {where} Deploying the clients and echo servers..."
        cluster.store.apply(parse_manifests(DEMO[0].read_text(), str(DEMO[0])))
    for names in (CLIENTS + ECHOES[:1], ECHOES[1:]):
        yield f"⌛ {where} Waiting for deployments [{' '.join(names)}] to become ready..."
        cluster.wait(lambda names=names: len(cluster.pods(*names)) >= len(names), " ".join(names), timeout_s)  # type: ignore[misc]
    for pod in cluster.pods(*CLIENTS, *ECHOES):
        yield f"⌛ {where} Waiting for CiliumEndpoint for pod {pod.name} to appear..."
    client = cluster.clients()[0]
    for service in cluster.services():
        yield f"⌛ {where} Waiting for Service {NAMESPACE}/{service.name} to become ready..."
        url = f"http://{service.name}:8080/"
        cluster.wait(lambda url=url: cluster.is_reached(client, url), url, timeout_s)  # type: ignore[misc]
    for node in cluster.nodes():
        for service in cluster.services():
            for port in service.spec.ports:
                if port.node_port:
                    yield (
                        f"⌛ {where} Waiting for NodePort {node.ipv4}:{port.node_port}"
                        f" ({NAMESPACE}/{service.name}) to become ready..."
                    )
                    url = f"http://{node.ipv4}:{port.node_port}/"
                    cluster.wait(lambda url=url: cluster.is_reached(client, url), url, timeout_s)  # type: ignore[misc]
    cluster.settle(timeout_s)


def _texts(call: Call, name: str) -> tuple[str, ...]:
    value = call.value(name)
    return tuple(map(str, value)) if isinstance(value, tuple) else ()


def _say(text: str) -> None:
    print(text, end="", flush=True)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot write {path}: {os.strerror(error.errno or 0)}; choose another --junit-file") from None
