"""What people type behind -l."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.mesh.selector import parse_selector
from service.failure import Failure

LABELS = {"app": "web", "tier": "front"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app = web", True),
        ("app=db", False),
        ("app!=db", True),
        ("app", True),
        ("!app", False),
        ("!old,app", True),
        ("app in (db, web),tier", True),
        ("app notin (db,web)", False),
        ("missing in (a)", False),
    ],
)
def test_terms(text: str, matches: bool) -> None:
    assert parse_selector(text).matches(LABELS) is matches


@pytest.mark.parametrize("text", ["app=a=b", "=x", "app in", "app in (a", "a b", "a,,b", "!"])
def test_nonsense_is_named(text: str) -> None:
    with pytest.raises(Failure, match="--selector"):
        parse_selector(text)


@given(st.text(max_size=30))
def test_any_text_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(Failure):
        parse_selector(text).matches(LABELS)
