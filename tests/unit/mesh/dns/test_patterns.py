"""Names and patterns, against a reading of them label by label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.patterns import NameRules, normal, selectors_of

LETTERS = "aAbB1-_"
LABEL = st.text(LETTERS, min_size=1, max_size=4)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PATTERN_LABEL = st.text(LETTERS + "*", min_size=1, max_size=4).filter(lambda text: text != "**")
PATTERN = st.tuples(st.sampled_from(["", "**."]), st.lists(PATTERN_LABEL, min_size=1, max_size=3)).map(
    lambda parts: parts[0] + ".".join(parts[1])
)


def slowly(pattern: str, name: str) -> bool:
    """What a pattern means, without expressions."""
    if pattern == "*":
        return True
    wanted, labels = normal(pattern)[:-1].split("."), normal(name)[:-1].split(".")
    if wanted[0] == "**":
        # One label or more, and then the rest.
        return any(fits(wanted[1:], labels[start:]) for start in range(1, len(labels)))
    return fits(wanted, labels)


def fits(wanted: list[str], labels: list[str]) -> bool:
    return len(wanted) == len(labels) and all(map(label_fits, wanted, labels))


def label_fits(wanted: str, label: str) -> bool:
    if not wanted or not label:
        return wanted.strip("*") == "" and not label
    if wanted[0] == "*":
        return label_fits(wanted[1:], label) or label_fits(wanted, label[1:])
    return wanted[0] == label[0] and label_fits(wanted[1:], label[1:])


@given(PATTERN, NAME)
def test_patterns_mean_what_they_say(pattern: str, name: str) -> None:
    assert NameRules.of([pattern]).match(normal(name)) == slowly(pattern, name)


@given(st.lists(PATTERN, max_size=4), NAME)
def test_rules_are_alternatives(patterns: list[str], name: str) -> None:
    assert NameRules.of(patterns).match(normal(name)) == any(slowly(one, name) for one in patterns)


@given(PATTERN, NAME)
def test_selectors_are_found_by_the_same_rule(pattern: str, name: str) -> None:
    assert selectors_of([normal(name)], [pattern]) == ((pattern,) if slowly(pattern, name) else ())


@pytest.mark.parametrize(
    ("pattern", "name", "meant"),
    [
        ("example.com", "EXAMPLE.com.", True),
        ("Example.com.", "example.com", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("**.example.com", "a.b.example.com", True),
        ("**.example.com", "example.com", False),
        ("a*c.example.com", "abc.example.com", True),
        ("a*c.example.com", "a.c.example.com", False),
        ("*", ".", True),
        ("*", "a\\.b\\000.", True),
        ("*.com", "a\\.b.com", False),
        ("*.com", "xample.com\n", False),
    ],
)
def test_cases(pattern: str, name: str, meant: bool) -> None:
    assert NameRules.of([pattern]).match(normal(name)) is meant
