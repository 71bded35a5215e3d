"""Image names and the programs that serve in their place.

In:        a container as its pod's manifest describes it.
Out:       a command line and environment.
Elsewhere: servers/ holds the programs; supervisor.py starts them.

Images are not pulled. A container that names a `command` runs that command with the machine's own files, except
`pause`, which every image of the table has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.options import SOURCE_ROOT
from mesh.resources.base import Resource
from mesh.resources.mistakes import InvalidResource
from mesh.resources.pods import Container, Pod


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a program may want to know about the lab."""

    store: Path


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What to execute."""

    argv: tuple[str, ...]
    env: dict[str, str]


def _lean(module: str) -> Callable[[Container, Surroundings], list[str]]:
    """A program of the standard library only: -S leaves out `site`, which is half of the start."""
    return lambda container, _: [sys.executable, "-S", "-m", module, *container.args]


def _idle(_: Container, __: Surroundings) -> list[str]:
    return [sys.executable, "-S", "-m", "lab.servers.idle"]


def _coredns(_: Container, around: Surroundings) -> list[str]:
    return [sys.executable, "-m", "lab.servers.coredns", "--store", str(around.store)]


PROGRAMS: Final[dict[str, Callable[[Container, Surroundings], list[str]]]] = {
    "hashicorp/http-echo": _lean("lab.servers.http_echo"),
    "cilium/json-mock": _lean("lab.servers.json_echo"),
    "coredns/coredns": _coredns,
    "coredns": _coredns,
    "cilium/alpine-curl": _idle,
    "curlimages/curl": _idle,
    "pause": _idle,
}
"""By repository name without registry and tag."""


def repository(image: str) -> str:
    """`quay.io/cilium/json-mock:v1.3.8@sha256:...` -> `cilium/json-mock`."""
    name = image.partition("@")[0]
    head, _, tail = name.rpartition("/")
    name = f"{head}/{tail.partition(':')[0]}".lstrip("/")
    first, slash, rest = name.partition("/")
    # A first part with a dot or a port is a registry (distribution's reference grammar).
    if slash and ("." in first or ":" in first or first == "localhost"):
        name = rest
    return name.removeprefix("library/")


def command_line(pod: Pod, container: Container, around: Surroundings) -> CommandLine:
    """How to run a container. The pod has passed `check_image`."""
    argv = list(container.command) + list(container.args) if container.command else None
    if argv is None:
        argv = PROGRAMS[repository(container.image)](container, around)
    elif Path(argv[0]).name == "pause":
        argv = _idle(container, around)
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "HOSTNAME": pod.name,
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "PYTHONPATH": str(SOURCE_ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        **{one.name: one.value for one in container.env},
    }
    return CommandLine(tuple(argv), env)


def check_image(resource: Resource, where: str = "-") -> None:
    """Refuse containers that the lab cannot run. Raises: InvalidResource naming the container and the remedy."""
    spec = getattr(resource, "spec", None)
    template = getattr(spec, "template", None)
    containers = getattr(template.spec if template else spec, "containers", ())
    path = "spec.template.spec" if template else "spec"
    problems = [
        f"{where} ({resource.key}): {path}.containers[{number}].image: the lab has no program for"
        f" {container.image[:80]!r}; it has {', '.join(PROGRAMS)}, or give a command"
        for number, container in enumerate(containers)
        if not container.command and repository(container.image) not in PROGRAMS
    ]
    if problems:
        raise InvalidResource(*problems)
