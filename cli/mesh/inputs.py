"""Manifests from files, folders and standard input.

In:        what stands behind -f.
Out:       resources with where they stand; or everything that is wrong with them, in one Failure.
Elsewhere: mesh/resources/ checks single documents; apply.py gives them to the store.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from mesh.namespaces import missing_namespaces
from mesh.resources.base import Key, Resource
from mesh.resources.kinds import known_kinds, unknown_kind
from mesh.resources.manifests import manifests_of, parse_manifest
from mesh.resources.mistakes import InvalidResource
from mesh.services.admission import refusals
from service.failure import Failure, Failures

SUFFIXES: Final = (".yaml", ".yml", ".json")
ENVOY_KINDS: Final = ("CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig")

Check = Callable[[Resource, str], None]
"""(resource, where it stands): raises InvalidResource."""


@dataclass(frozen=True, slots=True)
class Document:
    """A resource and where it was written."""

    where: str
    """`app.yaml: document 2`."""
    resource: Resource


def files_among(paths: Iterable[str], recursive: bool = False) -> list[str]:
    """The files that are meant, folders opened. Raises: Failure for an empty folder."""
    found: list[str] = []
    for path in paths:
        if path == "-" or not Path(path).is_dir():
            found.append(path)
            continue
        inside = sorted(Path(path).rglob("*") if recursive else Path(path).iterdir())
        files = [str(one) for one in inside if one.suffix in SUFFIXES and one.is_file()]
        if not files:
            raise Failure(f"{path}: no file here ends in {', '.join(SUFFIXES)}")
        found += files
    return found


def read_text(path: str) -> str:
    """A file, or standard input for `-`. Raises: Failure."""
    try:
        return sys.stdin.buffer.read().decode() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def read_documents(
    paths: Iterable[str],
    known: Sequence[Resource],
    namespace: str | None = None,
    checks: Sequence[Check] = (),
    accepted: Path | None = None,
) -> list[Document]:
    """All resources of some files, checked: each by itself, then whether its namespace is known or among them.

    namespace  for resources that name none; those that name another are refused. None: default, and any will do.
    accepted   folder where it is remembered what Envoy has accepted; None: it is asked about everything.
    Raises:    Failure that names all mistakes.
    """
    every: list[Check] = [*checks, partial(_ask_envoy, accepted)]
    documents: list[Document] = []
    problems: list[str] = []
    for where, manifest in _manifests(paths, problems):
        try:
            resource = parse_manifest(manifest, where, namespace or "default")
            if namespace and resource.namespace not in ("", namespace):
                raise InvalidResource(
                    f"{where} ({resource.key}): metadata.namespace: is {resource.namespace!r},"
                    f" but --namespace says {namespace!r}"
                )
            for check in every:
                check(resource, where)
            documents.append(Document(where, resource))
        except InvalidResource as error:
            problems += error.problems
    lost = {id(one) for one in missing_namespaces([one.resource for one in documents], known)}
    problems += [
        f"{one.where} ({one.resource.key}): metadata.namespace: there is no namespace {one.resource.namespace!r}"
        for one in documents
        if id(one.resource) in lost
    ]
    problems += _clashes(documents, known)
    refuse(problems)
    return documents


def _ask_envoy(accepted: Path | None, resource: Resource, where: str) -> None:
    """Raises: InvalidResource when the resource is for Envoy, and Envoy would refuse it."""
    if resource.kind in ENVOY_KINDS:
        # Brings Envoy's messages and what translates them, a quarter of all that `apply` could load.
        from mesh.envoyconfig import validation, verdicts

        validation.check(resource, where, verdicts.Verdicts(accepted).complaint if accepted else None)


def _clashes(documents: Sequence[Document], known: Sequence[Resource]) -> Iterator[str]:
    """What is right by itself, but not beside the others, told with where it stands."""
    for problem in refusals([one.resource for one in documents], known):
        for one in documents:
            if problem.startswith(title := f"{one.resource.key}: "):
                yield f"{one.where} ({one.resource.key}): {problem.removeprefix(title)}"
                break


def read_keys(paths: Iterable[str], namespace: str | None) -> list[Key]:
    """What documents are called, however wrong the rest of them is. Raises: Failure that names all mistakes."""
    keys: list[Key] = []
    problems: list[str] = []
    kinds = known_kinds()
    for where, manifest in _manifests(paths, problems):
        kind = manifest.get("kind") if isinstance(manifest, dict) else None
        metadata = manifest.get("metadata") if isinstance(manifest, dict) else None
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(metadata, dict) or kind not in kinds:
            problems.append(f"{where}: kind: {unknown_kind(str(kind))}")
        elif not isinstance(name, str):
            problems.append(f"{where} ({kind}): metadata.name: missing")
        else:
            inside = str(metadata.get("namespace") or namespace or "default")
            keys.append(Key(str(kind), inside if kinds[str(kind)].namespaced else "", name))
    refuse(problems)
    return keys


def _manifests(paths: Iterable[str], problems: list[str]) -> Iterator[tuple[str, object]]:
    """The documents of all files, with where they stand; files that cannot be read go to `problems`."""
    for path in paths:
        try:
            yield from manifests_of(read_text(path), path)
        except (Failure, InvalidResource) as error:
            problems.append(str(error))


def refuse(problems: Sequence[str]) -> None:
    """Raises: Failure with all problems, if there are any."""
    if len(problems) == 1:
        raise Failure(problems[0])
    if problems:
        raise Failures(f"nothing was changed: {len(problems)} problems", *problems)
