"""Envoy is asked once about the same resources."""

from __future__ import annotations

from pathlib import Path

from mesh.envoyconfig import messages
from mesh.envoyconfig.translate import EnvoyResources
from mesh.envoyconfig.verdicts import MOST, Verdicts


def resources(name: str) -> EnvoyResources:
    return EnvoyResources(clusters=(messages.new(messages.CLUSTER, name=name),))


def test_what_envoy_has_accepted_is_remembered_for_all_and_complaints_are_not(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(text: str) -> str:
        asked.append(text)
        return "no" if "bad" in text else ""

    first, second = (Verdicts(tmp_path / "accepted", ask) for _ in range(2))
    assert [one.complaint(resources("good")) for one in (first, second, first)] == ["", "", ""]
    assert len(asked) == 1
    assert [one.complaint(resources("bad")) for one in (first, second)] == ["no", "no"]
    assert len(asked) == 3
    assert first.complaint(resources("other")) == ""
    assert len(asked) == 4


def test_envoy_is_asked_where_nothing_can_be_remembered(tmp_path: Path) -> None:
    verdicts = Verdicts(tmp_path / "missing" / "accepted", lambda text: "")
    assert verdicts.complaint(resources("good")) == ""
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    for number in range(MOST):
        (tmp_path / f"{number}").touch()
    assert Verdicts(tmp_path, lambda text: "").complaint(resources("new")) == ""
    assert len(list(tmp_path.iterdir())) == MOST + 1, "with the lock"
