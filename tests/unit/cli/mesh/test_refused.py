"""What agents have refused, as whoever applied it reads it."""

from __future__ import annotations

import json
from pathlib import Path

from cli.mesh.place import Place
from cli.mesh.refused import refused
from mesh.policy.outcome import Refusal
from mesh.resources.base import Key

POLICY = Key("CiliumNetworkPolicy", "default", "p")


def place(folder: Path, refusal: Refusal) -> Place:
    (folder / "n").mkdir()
    report = {"node": "n", "parts": {"policy": {"refusals": [refusal.plain()]}}}
    (folder / "n/agent.json").write_text(json.dumps(report))
    endpoints = [{"id": 7, "namespace": "default", "pod": "web"}, {"id": 8, "labels": ["reserved:host"]}]
    (folder / "n/state.json").write_text(json.dumps({"local_endpoints": endpoints}))
    return Place(folder / "store", folder)


def test_a_refusal_names_document_node_pods_and_the_remedy(tmp_path: Path) -> None:
    refusal = Refusal((POLICY,), 256, (7, 8, 9, 10), "needs 20000 entries; use wider selectors", keeps_old=True)
    [found] = refused(place(tmp_path, refusal), ["n", "other"])
    assert found.text == (
        "CiliumNetworkPolicy default/p: not in force at endpoint 7 (default/web), 8, 9 and 1 more of node n:"
        " needs 20000 entries; use wider selectors; the old policy stays"
    )
    assert found.concerns({POLICY})
    assert not found.concerns({Key("NetworkPolicy", "default", "p")})
