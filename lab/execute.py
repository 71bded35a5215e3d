"""`lab exec`: a command inside a pod, on a node, or in the outside world.

In:        lab.json; the words of the command line.
Out:       this process becomes the command, so its exit code, signals, stdin and terminal are the caller's.
Elsewhere: linux.py enters namespaces.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from lab.cgroups import find_cgroup
from lab.linux import Place
from lab.rundir import MARK, RunDir
from service.failure import Failure

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126


def find_pod(pods: Sequence[Mapping[str, Any]], name: str, namespace: str) -> Mapping[str, Any]:
    """The pod that is meant: its name, `pod/NAME`, a deployment (also `deploy/NAME`), or the beginning of a pod's name.

    Raises: Failure when there is none, or when a beginning fits several workloads.
    """
    kind, slash, rest = name.partition("/")
    if slash and kind not in {"pod", "pods", "deploy", "deployment", "deployments"}:
        raise Failure(f"cannot enter a {kind}; name a pod or a deployment")
    wanted = rest if slash else name
    here = [pod for pod in pods if pod["namespace"] == namespace]
    if not kind.startswith("deploy") or not slash:
        for pod in here:
            if pod["name"] == wanted:
                return pod
    for pod in here:
        if pod["deployment"] == wanted:
            return pod
    found = [pod for pod in here if pod["name"].startswith(wanted)] if not slash else []
    owners = {pod["deployment"] or pod["name"] for pod in found}
    if len(owners) == 1:
        return found[0]
    if owners:
        raise Failure(f"{wanted!r} may be any of {', '.join(pod['name'] for pod in found)}; say which")
    elsewhere = sorted({pod["namespace"] for pod in pods if pod["name"].startswith(wanted)})
    hint = f"; there is one in {elsewhere[0]} (use -n {elsewhere[0]})" if elsewhere else "; see `flowscope lab status`"
    raise Failure(f"no pod {wanted!r} in namespace {namespace}{hint}")


def pod_place(pod: Mapping[str, Any]) -> Place:
    """Where a pod's programs live."""
    etc = Path(pod["etc"]) if pod["etc"] else None
    return Place(netns=pod["netns"], hostname=pod["hostname"], etc=etc, own_sys=True)


def node_place(run_dir: RunDir, state: Mapping[str, Any], name: str) -> Place:
    """Where a node is. Raises: Failure for an unknown one."""
    for node in state.get("nodes", ()):
        if node["name"] == name:
            etc, cgroup = run_dir.node(name) / "etc", find_cgroup(node["netns"])
            return Place(netns=node["netns"], hostname=name, etc=etc, own_sys=True, cgroup=cgroup)
    known = ", ".join(node["name"] for node in state.get("nodes", ()))
    raise Failure(f"no node {name!r}; there are {known or 'none'}")


def outside_place(run_dir: RunDir, state: Mapping[str, Any]) -> Place:
    """The world outside the cluster."""
    return Place(netns=state["outside"], hostname="outside", etc=run_dir.path / "outside" / "etc", own_sys=True)


def running_state(run_dir: RunDir) -> dict[str, Any]:
    """lab.json of a lab that runs. Raises: Failure."""
    if os.geteuid() != 0:
        raise Failure("the lab needs root; run it with sudo")
    if not run_dir.is_running():
        raise Failure("no lab is running; start one with `flowscope lab up`")
    return run_dir.read_state()


def become(place: Place, command: Sequence[str], run_dir: RunDir) -> NoReturn:
    """Enter `place` and execute the command there; does not come back."""
    sys.stdout.flush()
    try:
        place.enter()
    except OSError as error:
        raise Failure(f"cannot enter {place.netns}: {error}; is the pod still there?") from error
    env = {**os.environ, MARK: str(run_dir.path), "HOSTNAME": place.hostname or ""}
    try:
        os.execvpe(command[0], list(command), env)
    except OSError as error:
        print(f"flowscope: cannot execute {command[0]!r}: {error.strerror}", file=sys.stderr)
        # The codes of shells and of kubectl exec.
        sys.exit(NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE)
