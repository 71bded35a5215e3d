"""`flowscope mesh get` and `api-resources`.

In:        kinds and names; the resource store.
Out:       tables like kubectl's, YAML, JSON or names; with -w one line for each change.
Elsewhere: kinds.py says which columns there are.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cli.command import Call
from cli.mesh.kinds import AGE, KnownKind, kinds, rows_of, targets_of
from cli.mesh.place import Place, find_place, opened
from cli.mesh.selector import parse_selector
from cli.mesh.view import View
from cli.output import show, write
from cli.table import lines_of, widths_of
from mesh.resources.base import Key, Resource
from mesh.resources.selectors import LabelSelector
from mesh.store import Store
from service.failure import Failure, Failures

FORMATS: Final = ("", "wide", "yaml", "json", "name")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be shown, and how."""

    targets: Sequence[tuple[KnownKind, str | None]]
    namespace: str | None
    """None: all."""
    selector: LabelSelector
    output: str = ""
    labels: bool = False
    heads: bool = True
    """With headings."""

    @property
    def kinds(self) -> list[KnownKind]:
        """Each kind once, in the order in which they were named."""
        return list(dict.fromkeys(kind for kind, _ in self.targets))

    def pick(self, kind: KnownKind, view: View) -> list[Resource]:
        """The resources of a kind that are meant."""
        stored = [one for one in view.resources if one.kind == kind.kind]
        derived = kind.shown.derive(view) if kind.shown.derive else []
        names = {name for one, name in self.targets if one == kind}
        return [
            one
            for one in sorted(stored + derived, key=lambda one: one.key)
            if None in names or one.name in names
            if not kind.namespaced or self.namespace in (None, one.namespace)
            if self.selector.matches(one.metadata.labels)
        ]

    def missing(self, view: View) -> list[str]:
        """Names that nothing has."""
        inside = f" in namespace {self.namespace}" if self.namespace else ""
        return [
            f"there is no {kind.kind} {name!r}" + (inside if kind.namespaced else "")
            for kind, name in self.targets
            if name is not None and name not in {one.name for one in self.pick(kind, view)}
        ]


def request_of(call: Call) -> Request:
    """Which resources a command line means. Raises: Failure."""
    return Request(
        targets_of(call.words),
        None if call.on("all-namespaces") else call.text("namespace"),
        parse_selector(call.text("selector")),
    )


def run_get(call: Call) -> int:
    """`mesh get KIND[,KIND] [NAME...]`."""
    output = call.text("output")
    if output not in FORMATS:
        raise Failure(f"--output is one of {', '.join(FORMATS[1:])}, got {output[:80]!r}")
    request = replace(request_of(call), output=output, labels=call.on("show-labels"), heads=not call.on("no-headers"))
    place = find_place(call)
    with opened(place) as store:
        view = View(store.find(), place)
        missing = request.missing(view)
        if call.on("watch"):
            if missing:
                raise Failures(*missing)
            asyncio.run(follow(store, place, request))
        elif shown := render(request, view):
            (write if request.output in _WRITERS else show)(shown)
        elif not missing:
            print(_nothing(request), file=sys.stderr)
    if missing:
        raise Failures(*missing)
    return 0


def _nothing(request: Request) -> str:
    everywhere = request.namespace is None or not any(kind.namespaced for kind in request.kinds)
    return "No resources found" + ("" if everywhere else f" in {request.namespace} namespace.")


def render(request: Request, view: View) -> str:
    """The whole answer; empty when there is nothing."""
    found = [(kind, picked) for kind in request.kinds if (picked := request.pick(kind, view))]
    if not found:
        return ""
    if request.output in _WRITERS:
        one_was_named = len(request.targets) == 1 and request.targets[0][1] is not None
        return _WRITERS[request.output]([one for _, picked in found for one in picked], one_was_named)
    tables = (table_of(request, kind, picked, view) for kind, picked in found)
    return "\n\n".join("\n".join(lines_of(rows if request.heads else rows[1:])) for rows in tables) + "\n"


def table_of(request: Request, kind: KnownKind, found: Sequence[Resource], view: View) -> list[list[str]]:
    """The rows of one kind, with headings."""
    return rows_of(
        kind.shown,
        found,
        view,
        wide=request.output == "wide",
        namespaces=request.namespace is None and kind.namespaced,
        labels=request.labels,
        prefix=f"{kind.prefix}/" if len(request.kinds) > 1 else "",
    )


def _yaml(found: Sequence[Resource], single: bool) -> str:
    import yaml

    return yaml.safe_dump(_plain(found, single), allow_unicode=True, default_flow_style=False)


def _json(found: Sequence[Resource], single: bool) -> str:
    return json.dumps(_plain(found, single), indent=4, ensure_ascii=False) + "\n"


def _names(found: Sequence[Resource], _single: bool) -> str:
    prefixes = kinds()
    return "".join(f"{prefixes[one.kind].prefix}/{one.name}\n" for one in found)


def _plain(found: Sequence[Resource], single: bool) -> dict[str, Any]:
    if single and len(found) == 1:
        return found[0].dump()
    return {
        "apiVersion": "v1",
        "items": [one.dump() for one in found],
        "kind": "List",
        "metadata": {"resourceVersion": ""},
    }


_WRITERS: Final[dict[str, Callable[[Sequence[Resource], bool], str]]] = {"yaml": _yaml, "json": _json, "name": _names}


async def follow(store: Store, place: Place, request: Request) -> None:
    """Everything once, then each resource whose line changes, until interrupted."""
    told: dict[str, dict[Key, object]] = {}
    widths: dict[str, list[int]] = {}
    async for _ in store.watch():
        view = View(store.find(), place)
        for kind in request.kinds:
            found = request.pick(kind, view)
            rows = table_of(request, kind, found, view)
            # A line that says nothing new but its age is not worth repeating.
            ages = [at for at, title in enumerate(rows[0]) if title == AGE.title]
            before = told.get(kind.kind)
            now: dict[Key, object] = {
                one.key: one if request.output in _WRITERS else [cell for at, cell in enumerate(row) if at not in ages]
                for one, row in zip(found, rows[1:], strict=True)
            }
            told[kind.kind] = now
            fresh = [at for at, key in enumerate(now) if before is None or before.get(key) != now[key]]
            if not fresh:
                continue
            if request.output in _WRITERS:
                between = "---\n" if request.output == "yaml" else ""
                write("".join(between + _WRITERS[request.output]([found[at]], True) for at in fresh))
                continue
            shown = [rows[0], *(rows[1 + at] for at in fresh)]
            widths[kind.kind] = widths_of(shown, widths.get(kind.kind, ()))
            lines = lines_of(shown, widths[kind.kind])
            show("\n".join(lines if request.heads and not before else lines[1:]) + "\n")


def run_api_resources(_call: Call) -> int:
    """`mesh api-resources`: what there can be."""
    rows = [["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]]
    for one in sorted(kinds().values(), key=lambda one: (one.api_version.rpartition("/")[0], one.shown.plural)):
        shown, namespaced = one.shown, str(one.namespaced).lower()
        rows.append([shown.plural, ",".join(shown.short), one.api_version, namespaced, one.kind])
    write("\n".join(lines_of(rows)) + "\n")
    return 0
