"""One process decides: a real lock on a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mesh.leader import Lock, lead
from mesh.resources.base import Key, changed
from mesh.resources.manifests import parse_manifests
from mesh.resources.pods import Pod, PodNetwork
from mesh.resources.services import Service
from mesh.store import SqliteStore

SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}"
POD = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c, image: pause}]}}"


def test_one_has_the_lock_and_the_next_gets_it_afterwards(tmp_path: Path) -> None:
    first, second = Lock(tmp_path), Lock(tmp_path)
    assert first.take()
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()


async def test_who_leads_decides_after_each_change(tmp_path: Path) -> None:
    store, other = SqliteStore(tmp_path), SqliteStore(tmp_path)
    waiting = asyncio.create_task(lead(store, Lock(tmp_path), "default"))
    other.apply(parse_manifests(SERVICE))
    async with asyncio.timeout(10):
        async for _ in other.watch():
            found = other.get(Key("Service", "default", "web"))
            if isinstance(found, Service) and found.spec.cluster_ip:
                break
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert Lock(tmp_path).take(), "whoever ends gives the lock back"


def test_a_pod_that_runs_is_told_to_go_and_stays_until_it_has_ended(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, clock=lambda: 1.0)
    key = Key("Pod", "default", "web")
    store.apply(parse_manifests(POD))
    (pod,) = store.find()
    assert isinstance(pod, Pod)
    assert store.delete([key]) == 1
    assert store.get(key) is None, "it did not run"
    running = changed(pod, status=changed(pod.status, network=PodNetwork(interface="lxc1", mac="a", host_mac="b")))
    store.apply([running])
    assert store.delete([key]) == 1
    told = store.get(key)
    assert told is not None
    assert told.metadata.deletion_timestamp == "1970-01-01T00:00:01Z"
    assert isinstance(told, Pod)
    assert told.is_leaving
    assert store.delete([key], at_once=True) == 1
    assert store.get(key) is None
