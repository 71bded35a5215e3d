"""The resource store on real SQLite files, also between two processes' worth of handles."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.controller import reconcile
from mesh.resources.base import Key, Resource, changed
from mesh.resources.deployments import Deployment
from mesh.resources.manifests import parse_manifests
from mesh.resources.pods import Pod
from mesh.resources.services import Service
from mesh.store import SqliteStore, Update
from service.failure import Failure
from tests.support.cluster import node, pod

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: pause}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path)
    yield opened
    opened.close()


def named(name: str) -> Pod:
    return changed(pod(name), metadata=changed(pod(name).metadata, uid=""))


def test_applying_says_what_became_of_each_resource(store: SqliteStore) -> None:
    resources = parse_manifests(WEB)
    assert store.apply(resources) == ["created", "created"]
    assert store.apply(resources) == ["unchanged", "unchanged"]
    scaled = parse_manifests(WEB.replace("replicas: 2", "replicas: 3"))
    assert store.apply(scaled) == ["configured", "unchanged"]


def test_applying_again_keeps_what_controllers_wrote(store: SqliteStore) -> None:
    store.apply([node(0), *parse_manifests(WEB)])
    store.update(reconcile)
    before = store.find()
    assert store.apply(parse_manifests(WEB)) == ["unchanged", "unchanged"]
    assert store.find() == before
    service = store.get(Key("Service", "default", "web"))
    deployment = store.get(Key("Deployment", "default", "web"))
    assert isinstance(service, Service)
    assert isinstance(deployment, Deployment)
    assert service.spec.cluster_ip
    assert deployment.status.created == 2


def test_a_resource_keeps_its_uid_and_a_new_one_of_that_name_gets_another(store: SqliteStore) -> None:
    def uid() -> str:
        store.apply([named("a")])
        found = store.get(Key("Pod", "default", "a"))
        assert found is not None
        return found.metadata.uid

    first = uid()
    assert first
    assert uid() == first
    assert store.delete([Key("Pod", "default", "a")]) == 1
    assert uid() != first


def test_resources_are_found_by_kind_and_namespace(store: SqliteStore) -> None:
    store.apply([node(0), named("b"), named("a"), pod("c", "shop")])
    assert [one.name for one in store.find("Pod")] == ["a", "b", "c"]
    assert [one.name for one in store.find("Pod", "shop")] == ["c"]
    assert store.get(Key("Pod", "shop", "nobody")) is None


def test_an_update_that_fails_changes_nothing(store: SqliteStore) -> None:
    store.apply([named("a")])

    def fail(_resources: list[Resource]) -> Update:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.update(fail)
    assert len(store.find()) == 1
    assert store.apply([named("b")]) == ["created"]


def test_changes_tell_each_resource_once_and_deletions_by_key(store: SqliteStore) -> None:
    store.apply([named("a"), named("b")])
    seen = store.changes(0)
    assert [one.name for one in seen.written] == ["a", "b"]
    assert not store.changes(seen.revision)
    store.delete([Key("Pod", "default", "a")])
    after = store.changes(seen.revision)
    assert after.deleted == (Key("Pod", "default", "a"),)
    assert after.written == ()


async def test_a_watcher_hears_of_changes_made_through_another_handle(store: SqliteStore, tmp_path: Path) -> None:
    watching = store.watch()
    store.apply([named("a")])
    assert [one.name for one in (await anext(watching)).written] == ["a"]
    other = SqliteStore(tmp_path)
    upcoming = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0.05)
    other.apply([named("b")])
    async with asyncio.timeout(1):  # far below the two seconds after which a watcher looks without being woken
        changes = await upcoming
    assert [one.name for one in changes.written] == ["b"]
    await watching.aclose()  # type: ignore[attr-defined]
    other.close()


def test_two_writers_never_lose_a_change(store: SqliteStore, tmp_path: Path) -> None:
    other = SqliteStore(tmp_path)
    for number in range(20):
        (store if number % 2 else other).apply([named(f"p{number}")])
    assert len(store.find()) == 20
    assert store.changes(0).revision == 20
    other.close()


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match=r"cannot open the resource store in .*/file/store"):
        SqliteStore(tmp_path / "file" / "store")


def test_what_an_earlier_version_took_can_be_applied_anew_or_deleted(store: SqliteStore, tmp_path: Path) -> None:
    store.apply(parse_manifests(WEB))
    with sqlite3.connect(tmp_path / "resources.db") as db:
        db.execute("UPDATE resources SET manifest = replace(manifest, '80', '80000') WHERE kind = 'Service'")
    again = SqliteStore(tmp_path)
    with pytest.raises(Failure, match=r"Service default/web\): spec.ports\[0\].port: .*apply it anew, or delete it"):
        again.find()
    assert [one.kind for one in again.find(readable=True)] == ["Deployment"]
    assert list(again.unreadable) == [Key("Service", "default", "web")]
    assert again.apply(parse_manifests(WEB)) == ["unchanged", "created"]
    assert len(again.find()) == 2
    with sqlite3.connect(tmp_path / "resources.db") as db:
        db.execute("UPDATE resources SET manifest = '{' WHERE kind = 'Service'")
    third = SqliteStore(tmp_path)
    assert third.delete([Key("Service", "default", "web")]) == 1
    assert [one.kind for one in third.find()] == ["Deployment"]
    again.close()
    third.close()
