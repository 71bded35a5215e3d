"""`flowscope lab ...`: what each word does.

In:        a parsed command line.
Out:       text for people, exit codes.
Elsewhere: cli/commands/lab.py defines flags and help; supervisor.py is the lab itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from cli.command import Call
from cli.table import lines_of
from lab.checks import obstacle, taken_ports
from lab.cleanup import clean
from lab.execute import become, find_pod, node_place, outside_place, pod_place, running_state
from lab.options import SOURCE_ROOT, LabOptions
from lab.rundir import MARK, RunDir
from service.failure import Failure, Failures

POLL_S: Final = 0.05
DOWN_S: Final = 20.0
"""Seconds that a supervisor gets to take its lab down before we do it."""


def up(call: Call) -> int:
    """`lab up`: start the supervisor, wait until everything serves."""
    start(options_of(call), int(call.number("timeout") / 1e9), quiet=call.on("quiet"))
    return 0


def options_of(call: Call) -> LabOptions:
    """The lab that a command line asks for. Paths are made absolute: the supervisor lives elsewhere."""
    given: dict[str, Any] = {
        "run_dir": call.text("run-dir"),
        "relay_listen": call.text("relay-listen"),
        # The UI has nothing to ask without a relay.
        "ui_listen": call.text("ui-listen") if call.text("relay-listen") else "",
        "aggregation": call.text("aggregation"),
    }
    if call.given("config"):
        given["config"] = os.path.abspath(call.text("config"))
    if call.given("record"):
        given["record"] = os.path.abspath(call.text("record"))
    manifests = call.values.get("filename")
    if isinstance(manifests, tuple):
        if "-" in manifests:
            raise Failure("`lab up` reads files only; pipe manifests into `flowscope lab apply -f -` afterwards")
        given["manifests"] = tuple(map(os.path.abspath, manifests))
    return LabOptions(**given)


def start(options: LabOptions, timeout_s: float, quiet: bool = False) -> None:
    """Bring a lab up and return when it serves. Raises: Failure; nothing is left then."""
    began = time.monotonic()
    if reason := obstacle():
        raise Failure(reason)
    run_dir = RunDir(Path(options.run_dir))
    if run_dir.is_running():
        raise Failure("a lab is running already; see `flowscope lab status`, end it with `flowscope lab down`")
    if run_dir.path.exists() and clean(run_dir):
        print("removed what a killed lab had left", file=sys.stderr)
    if reason := taken_ports(one for one in (options.relay_listen, options.ui_listen) if one):
        raise Failure(reason)
    run_dir.create()
    run_dir.write_state({"phase": "starting"})
    child = _spawn_supervisor(run_dir, options)
    try:
        state = _await_ready(run_dir, child, began + timeout_s)
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if not quiet:
        print(_summary(state, time.monotonic() - began))


def _spawn_supervisor(run_dir: RunDir, options: LabOptions) -> subprocess.Popen[bytes]:
    env = {**os.environ, MARK: str(run_dir.path), "PYTHONPATH": str(SOURCE_ROOT)}
    with (run_dir.logs / "supervisor.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "lab.supervisor", options.to_json()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            cwd="/",
            start_new_session=True,
        )


def _await_ready(run_dir: RunDir, child: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
    while True:
        state = run_dir.read_state()
        if state.get("phase") == "ready":
            return state
        if child.poll() is not None:
            reason = run_dir.read_state().get("message")
            text = str(reason or f"the lab's supervisor ended; see {run_dir.logs / 'supervisor.log'}")
            raise Failures(*text.splitlines())
        if time.monotonic() > deadline:
            waiting = ", ".join(state.get("waiting", ())) or "the supervisor"
            raise Failure(f"the lab is not ready in time: waiting for {waiting}; logs are in {run_dir.logs}")
        time.sleep(POLL_S)


def _summary(state: dict[str, Any], took_s: float) -> str:
    nodes = [node["name"] for node in state["nodes"]]
    lines = [f"{len(nodes)} nodes: {', '.join(nodes)}"]
    lines.append(
        f"{len(state['pods'])} pods: " + ", ".join(f"{pod['namespace']}/{pod['name']}" for pod in state["pods"])
    )
    if state["relay"]:
        lines.append(f"relay on {state['relay']}" + (f", UI on http://{state['ui']}" if state["ui"] else ""))
    lines.append(f"ready after {took_s:.1f} s")
    return "\n".join(lines)


def down(call: Call) -> int:
    """`lab down`: end the lab, or clean up after one that was killed."""
    removed = stop(RunDir(Path(call.text("run-dir"))))
    print("the lab is down" if removed else "there was no lab")
    return 0


def stop(run_dir: RunDir) -> bool:
    """Take down whatever there is; says whether there was anything. Raises: Failure."""
    if os.geteuid() != 0:
        raise Failure("the lab needs root; run it with sudo")
    was_running = run_dir.is_running()
    if was_running:
        _end_supervisor(run_dir)
    if not run_dir.path.exists():
        return was_running
    return clean(run_dir) > 0 or was_running


def _end_supervisor(run_dir: RunDir) -> None:
    pid = run_dir.read_state().get("pid")
    deadline = time.monotonic() + DOWN_S
    if isinstance(pid, int):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        while run_dir.is_running() and time.monotonic() < deadline:
            time.sleep(POLL_S)


def status(call: Call) -> int:
    """`lab status`: nodes, pods and processes. Exit code 0 when everything is ready, 1 otherwise."""
    run_dir = RunDir(Path(call.text("run-dir")))
    running = run_dir.is_running()
    state = run_dir.read_state() if running else {}
    if call.text("output") == "json":
        print(json.dumps({"running": running, **state}, indent=2))
    elif not running:
        print("no lab is running")
    else:
        print(render_status(state))
    return 0 if running and state.get("phase") == "ready" and not state.get("waiting") else 1


def render_status(state: dict[str, Any]) -> str:
    """The lab as tables."""
    processes = {one["name"]: one for one in state.get("processes", ())}
    nodes = [("NODE", "IP", "AGENT", "OBSERVER", "PODS")]
    for node in state.get("nodes", ()):
        name = node["name"]
        count = sum(pod["node"] == name for pod in state["pods"])
        agent, observer = (_word(processes.get(f"{name}_{part}")) for part in ("agent", "observer"))
        nodes.append((name, node["ips"][0], agent, observer, str(count)))
    pods = [("NAMESPACE", "POD", "NODE", "IP", "READY", "RESTARTS")]
    for pod in sorted(state.get("pods", ()), key=lambda one: (one["namespace"], one["name"])):
        ready = "yes" if pod["ready"] else "no"
        pods.append((pod["namespace"], pod["name"], pod["node"], pod["ips"][0], ready, str(pod["restarts"])))
    services = [("SERVICE", "ADDRESS", "STATE")]
    services += [(name, state.get(name, ""), _word(processes.get(name))) for name in ("relay", "ui")]
    text = "\n\n".join("\n".join(lines_of(rows)) for rows in (nodes, pods, services))
    waiting = state.get("waiting")
    return f"{text}\n\n{state.get('phase')}" + (f", waiting for {', '.join(waiting)}" if waiting else "")


def _word(process: dict[str, Any] | None) -> str:
    if process is None:
        return "-"
    restarts = f" ({process['restarts']} restarts)" if process["restarts"] else ""
    return ("running" if process["pid"] else "down") + restarts


def execute(call: Call) -> int:
    """`lab exec`: become a command inside a pod, a node or the outside world."""
    run_dir = RunDir(Path(call.text("run-dir")))
    state = running_state(run_dir)
    words = list(call.words)
    if call.on("outside"):
        place = outside_place(run_dir, state)
    elif call.given("node"):
        place = node_place(run_dir, state, call.text("node"))
    elif words:
        place = pod_place(find_pod(state.get("pods", ()), words.pop(0), call.text("namespace")))
    else:
        raise Failure("name a pod, --node NAME or --outside; see `flowscope lab exec --help`")
    if not words:
        raise Failure("name a command behind `--`, as in `flowscope lab exec client2 -- curl -v echo-same-node:8080/`")
    become(place, words, run_dir)


def apply(call: Call) -> int:
    """`lab apply -f FILE`: give resources to a running lab and wait until its pods are ready."""
    from cli.mesh.apply import apply as give
    from cli.mesh.apply import files_of
    from cli.mesh.place import Place, opened
    from lab.images import check_image

    run_dir = RunDir(Path(call.text("run-dir")))
    running_state(run_dir)
    with opened(Place(run_dir.store, run_dir.path), writes=True) as store:
        give(store, files_of(call), checks=(check_image,))
    _await_settled(run_dir, time.monotonic() + call.number("timeout") / 1e9)
    return 0


def _await_settled(run_dir: RunDir, deadline: float) -> None:
    """Wait until nothing is waiting any more, twice in a row: the supervisor must first notice the change."""
    calm = 0
    while calm < 4:
        time.sleep(POLL_S)
        waiting = running_state(run_dir).get("waiting", ())
        calm = 0 if waiting else calm + 1
        if time.monotonic() > deadline:
            raise Failure(f"not ready in time: waiting for {', '.join(waiting)}; logs are in {run_dir.logs}")
