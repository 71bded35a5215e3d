"""`flowscope mesh describe`: one resource, and what the cluster makes of it.

In:        kinds and names; the resource store; agents' files.
Out:       text for people, `Name:  value`, lists indented.
Elsewhere: get.py prints resources as they are stored; told.py collects what follows from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cli.command import Call
from cli.mesh.get import request_of
from cli.mesh.place import find_place, opened
from cli.mesh.told import facts_about
from cli.mesh.view import NONE, View
from cli.output import show
from mesh.resources.base import Resource
from service.failure import Failures

_WIDTH: Final = 14
_OWN: Final = frozenset({"apiVersion", "kind", "metadata"})
_SECRET: Final = frozenset({"data", "stringData"})
"""Whoever looks over a shoulder shall not read it; `get -o yaml` prints it."""


def run_describe(call: Call) -> int:
    """`mesh describe KIND [NAME...]`."""
    request = request_of(call)
    place = find_place(call)
    with opened(place) as store:
        view = View(store.find(), place)
    found = [one for kind in request.kinds for one in request.pick(kind, view)]
    show("\n\n\n".join("\n".join(lines_about(one, view)) for one in found) + "\n" if found else "")
    missing = request.missing(view)
    if not found and not missing:
        missing = ["there is nothing to describe"]
    if missing:
        raise Failures(*missing)
    return 0


def lines_about(one: Resource, view: View) -> Iterator[str]:
    """Everything about one resource."""
    yield _line("Name", one.name)
    if one.namespace:
        yield _line("Namespace", one.namespace)
    yield from _listed("Labels", one.metadata.labels)
    yield from _listed("Annotations", one.metadata.annotations)
    yield _line("API Version", one.api_version)
    yield _line("Kind", one.kind)
    if one.metadata.creation_timestamp:
        yield _line("Created", f"{one.metadata.creation_timestamp} ({view.age(one)} ago)")
    for owner in one.metadata.owner_references:
        yield _line("Controlled By", f"{owner.kind}/{owner.name}")
    for title, value in facts_about(one, view):
        if isinstance(value, str):
            yield _line(title, value)
        else:
            yield f"{title}:" if value else _line(title, NONE)
            yield from (f"  {text}" for text in value)
    hidden = _OWN | _SECRET if one.kind == "Secret" else _OWN
    rest = {name: value for name, value in one.dump().items() if name not in hidden and value not in ({}, [])}
    for name, value in rest.items():
        yield f"{name[:1].upper()}{name[1:]}:"
        yield from (f"  {line}" for line in _yaml(value))


def _line(title: str, value: str) -> str:
    return f"{title + ':':<{_WIDTH}} {value}"


def _listed(title: str, pairs: Mapping[str, str]) -> Iterator[str]:
    """One pair a line, the title before the first."""
    for at, (key, value) in enumerate(sorted(pairs.items())):
        yield f"{'' if at else title + ':':<{_WIDTH}} {key}={value}".replace("\n", " ")
    if not pairs:
        yield _line(title, NONE)


def _yaml(value: Any) -> list[str]:
    import yaml

    return yaml.safe_dump(value, allow_unicode=True, default_flow_style=False, sort_keys=False).splitlines()
