"""YAML to resources.

In:        text or plain data, and where it came from, for messages.
Out:       resources of any kind; everything that is wrong with them.
Elsewhere: kinds.py knows the kinds, mistakes.py words what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import yaml
from pydantic import ValidationError

from mesh.resources.base import Resource, changed
from mesh.resources.kinds import known_kinds, unknown_kind
from mesh.resources.mistakes import InvalidResource, all_errors

MAX_DOCUMENT_BYTES: Final = 4 << 20
"""YAML text we are willing to parse at once; etcd's own limit for one object is 1.5 MB."""


def parse_manifests(text: str, source: str = "-", namespace: str = "default") -> list[Resource]:
    """Read all documents of a YAML text; `kind: List` is unfolded, empty documents are skipped.

    source     file name, for messages.
    namespace  for namespaced resources that name none.
    Raises:    InvalidResource for anything that is not a resource we can take.
    """
    resources, problems = check_manifests(text, source, namespace)
    if problems:
        raise InvalidResource(*problems)
    return resources


def check_manifests(text: str, source: str = "-", namespace: str = "default") -> tuple[list[Resource], list[str]]:
    """Like parse_manifests, but goes on after a mistake: what could be read, and everything that is wrong."""
    resources: list[Resource] = []
    problems: list[str] = []
    try:
        for where, manifest in manifests_of(text, source):
            try:
                resources.append(parse_manifest(manifest, where, namespace))
            except InvalidResource as error:
                problems += error.problems
    except InvalidResource as error:
        problems += error.problems
    return resources, problems


def manifests_of(text: str, source: str = "-") -> Iterator[tuple[str, object]]:
    """The documents of a YAML text as plain data, each with where it stands. Raises: InvalidResource."""
    if len(text) > MAX_DOCUMENT_BYTES:
        raise InvalidResource(f"{source}: larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
    for number, document in _documents(text, source):
        for manifest in _unfold(document):
            yield f"{source}: document {number}", manifest


def parse_manifest(manifest: object, where: str = "manifest", namespace: str = "default") -> Resource:
    """One resource from plain data. Raises: InvalidResource, with the path of the bad field."""
    if not isinstance(manifest, dict):
        raise InvalidResource(f"{where}: must be a mapping with apiVersion, kind and metadata")
    known = known_kinds()
    kind = known.get(name := str(manifest.get("kind")))
    if kind is None:
        raise InvalidResource(f"{where}: kind: {unknown_kind(name)}")
    if manifest.get("apiVersion") not in kind.api_versions:
        got = str(manifest.get("apiVersion"))[:80]
        raise InvalidResource(f"{where} ({name}): apiVersion: must be {kind.api_versions[0]} for {name}, got {got!r}")
    try:
        resource = kind.model.model_validate(manifest)
    except ValidationError as error:
        title = _title(name, manifest)
        raise InvalidResource(*(f"{where} ({title}): {one}" for one in all_errors(error))) from None
    wanted = (resource.namespace or namespace) if kind.namespaced else ""
    if wanted == resource.namespace:
        return resource
    return resource.model_copy(update={"metadata": changed(resource.metadata, namespace=wanted)})


def _documents(text: str, source: str) -> Iterator[tuple[int, object]]:
    try:
        for number, document in enumerate(yaml.load_all(text, Loader=_LOADER), 1):
            if document is not None:
                yield number, document
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise InvalidResource(f"{source}:{place} not valid YAML: {problem}") from None


_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _unfold(document: object) -> Iterator[object]:
    if isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        yield from document["items"]
    else:
        yield document


def _title(kind: str, manifest: Mapping[str, object]) -> str:
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return kind
    namespace = metadata.get("namespace")
    return f"{kind} {namespace}/{metadata['name']}" if namespace else f"{kind} {metadata['name']}"
