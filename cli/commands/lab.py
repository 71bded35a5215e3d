"""`flowscope lab`: a cluster on this machine."""

from __future__ import annotations

from cli.command import Command, Example, Flag
from cli.flags import BOOL, DURATION, INT, LIST

_SECOND = 1_000_000_000

_RUN_DIR = Flag(
    name="run-dir", default="/run/flowscope/lab", help="folder of the lab's files and sockets", completes="dir"
)
_FILES = Flag(name="filename", short="f", kind=LIST, value_name="file", help="manifest; repeatable", completes="file")
_FILES_OR_STDIN = Flag(
    name="filename",
    short="f",
    kind=LIST,
    value_name="file",
    help="manifest; repeatable, - for standard input",
    completes="file",
)
_TIMEOUT = Flag(name="timeout", kind=DURATION, default=60 * _SECOND, help="how long to wait until everything serves")
_RELAY = Flag(name="relay-listen", default="localhost:4245", help="address of the relay; empty: neither relay nor UI")
_UI = Flag(name="ui-listen", default="localhost:12000", help="address of the UI; empty: none")
_MAKING = (
    Flag(name="config", value_name="file", help="kind-config.yaml; default: the demo's", completes="file"),
    _RELAY,
    _UI,
    Flag(
        name="aggregation",
        default="medium",
        help="how many events the kernel sends",
        choices=("none", "low", "medium", "max"),
    ),
    Flag(name="record", value_name="dir", help="record what each observer sees into this folder", completes="dir"),
    _TIMEOUT,
    _RUN_DIR,
)

_UP = Command(
    name="up",
    summary="Make a cluster and return when it serves",
    description=(
        "Makes the cluster of a kind-config.yaml out of network namespaces, with an agent and an observer on each node,"
        " a relay and a UI, all in the background. Without -f it runs the workloads of Cilium's connectivity test.\n\n"
        "Needs root and a kernel with eBPF. The machine's own network is not touched; its limit of inotify instances is"
        " raised to 1024 if it is lower, because each node's Envoy takes ten."
    ),
    flags=(_FILES, *_MAKING, Flag(name="quiet", short="q", kind=BOOL, help="say nothing when all is well")),
    examples=(
        Example("The demo's cluster", "flowscope lab up"),
        Example("Your own", "flowscope lab up --config kind-config.yaml -f app.yaml"),
    ),
    run="lab.commands:up",
    checks_server_flags=False,
)
_DOWN = Command(
    name="down",
    summary="Take the cluster down, or clean up after one that was killed",
    flags=(_RUN_DIR,),
    run="lab.commands:down",
    checks_server_flags=False,
)
_STATUS = Command(
    name="status",
    summary="Show nodes, pods and processes of the cluster",
    description="Exit code 0 when everything is ready, 1 otherwise.",
    flags=(
        Flag(name="output", short="o", default="table", help="how to show it", choices=("table", "json")),
        _RUN_DIR,
    ),
    run="lab.commands:status",
    checks_server_flags=False,
)
_EXEC = Command(
    name="exec",
    summary="Run a command in a pod, on a node, or in the outside world",
    arguments="[POD] -- COMMAND [ARGUMENT...]",
    description=(
        "POD is the name of a pod, the beginning of one, or the name of a deployment. The command's exit code, standard"
        " input and terminal are passed on."
    ),
    flags=(
        Flag(name="namespace", short="n", default="default", help="namespace of the pod", completes="namespaces"),
        Flag(name="node", value_name="name", help="run on this node instead", completes="nodes"),
        Flag(name="outside", kind=BOOL, help="run outside the cluster instead"),
        Flag(name="stdin", short="i", kind=BOOL, help="accepted as by kubectl exec; always on"),
        Flag(name="tty", short="t", kind=BOOL, help="accepted as by kubectl exec; always on"),
        _RUN_DIR,
    ),
    examples=(
        Example("Ask a pod", "flowscope lab exec -n cilium-test client2 -- curl -v echo-same-node:8080/"),
        Example("Look at a node", "flowscope lab exec --node kind-worker -- ip route"),
    ),
    run="lab.commands:execute",
    checks_server_flags=False,
)
_APPLY = Command(
    name="apply",
    summary="Give manifests to the running cluster and wait for its pods",
    flags=(_FILES_OR_STDIN, _TIMEOUT, _RUN_DIR),
    run="lab.commands:apply",
    checks_server_flags=False,
)
_DEMO = Command(
    name="demo",
    summary="Show it all: cluster, traffic, flows as they happen, UI",
    description=(
        "Brings the lab up, runs traffic, prints flows until Ctrl-C or for --duration, then takes everything down."
        " Without root or eBPF the same is shown on recorded traffic."
    ),
    flags=(
        Flag(name="duration", kind=INT, value_name="seconds", help="how long; 0: until Ctrl-C"),
        *_MAKING,
    ),
    run="lab.demo:run",
    checks_server_flags=False,
)

COMMAND = Command(
    name="lab",
    summary="A cluster on this machine, out of network namespaces",
    children=(_UP, _DOWN, _STATUS, _EXEC, _APPLY, _DEMO),
    checks_server_flags=False,
)
