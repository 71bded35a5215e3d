"""How the tests went, in words and as JUnit."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from connectivity.cluster import Party, Target
from connectivity.commands import choose
from connectivity.report import Failed, Outcome, closing, junit
from connectivity.runner import POLICIES
from connectivity.suite import TESTS, Action
from connectivity.verdicts import OK
from lab.linux import Place
from service.failure import Failure

ACTION = Action(
    "pod-to-pod",
    Party(name="ns/client", place=Place(), addresses=("10.0.0.1",)),
    Target(name="ns/echo", kind="pod", host="10.0.0.2", port=8080),
    OK,
)


def test_success_reads_as_people_know_it() -> None:
    outcomes = [Outcome("client-egress-l7", actions=10), *(Outcome(str(n), skipped=True) for n in range(10))]
    assert closing(outcomes) == "✅ All 1 tests (10 actions) successful, 10 tests skipped, 0 scenarios skipped."


def test_failures_are_listed() -> None:
    bad = Outcome("echo-ingress", actions=4, failed=[Failed(ACTION, ("no SYN was observed",))])
    text = closing([bad, Outcome("other", actions=2)])
    assert text.startswith("❌ 1/2 tests failed (1/6 actions), 0 tests skipped, 0 scenarios skipped:\n")
    assert "pod-to-pod: ns/client (10.0.0.1) -> ns/echo: no SYN was observed" in text


def test_junit_counts_and_names() -> None:
    outcomes = [
        Outcome("a", actions=1),
        Outcome("b", skipped=True),
        Outcome("c", actions=1, failed=[Failed(ACTION, ("<drop>",))]),
        Outcome("d", error="a policy was refused"),
    ]
    suite = ElementTree.fromstring(junit(outcomes, {"build": "7"}))[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    assert "<drop>" in (suite.findtext("testcase/failure") or "")
    assert suite.find("properties/property[@name='build']") is not None


def test_tests_are_chosen_by_expressions() -> None:
    assert [one.name for one in choose(["egress-l7"])] == ["client-egress-l7"]
    assert "client-egress" not in [one.name for one in choose(["!^client-egress$"])]
    assert choose([]) == list(TESTS)


@pytest.mark.parametrize("patterns", [["nothing-like-it"], ["("]])
def test_an_expression_that_finds_nothing_is_an_error(patterns: list[str]) -> None:
    with pytest.raises(Failure, match="--test"):
        choose(patterns)


def test_every_policy_file_is_there_and_used() -> None:
    used = {name for one in TESTS for name in one.manifests}
    assert used == {Path(one).stem for one in POLICIES.glob("*.yaml")}
