"""The language of the filter box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.flow import flow_pb2
from tests.support.ui_flows import Shop
from ui.query import BadQuery, parse_query


def passing(text: str) -> list[int]:
    """Destination ports of the flows that pass."""
    shop = Shop()
    client, cart, db = shop.pod("client"), shop.pod("cart"), shop.pod("db", "data")
    shop.add_now(
        shop.row(client, cart, dport=80),
        shop.row(cart, db, dport=5432, verdict=flow_pb2.DROPPED),
        shop.row(client, db, dport=53),
    )
    rows = shop.hub.ring.slice(0, 3)
    return sorted(rows["dport"][parse_query(text).mask(rows, shop.tables)].tolist())


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("", [53, 80, 5432]),
        ("--verdict DROPPED", [5432]),
        ("verdict=DROPPED or --port 53", [53, 5432]),
        ("--to-pod data/db and not --verdict DROPPED", [53]),
        ("not (--port 53 or --port 80)", [5432]),
        ("--port 53 --port 80", [53, 80]),
        ("--not --port 53 --from-pod shop/client", [80]),
        ("-n data", [53, 5432]),
        ('--to-label "app in (cart, nothing)"', [80]),
        ("(--from-pod shop/client (--port 53 or --port 5432))", [53]),
    ],
)
def test_flags_are_joined_with_and_or_not_and_parentheses(text: str, ports: list[int]) -> None:
    assert passing(text) == ports


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("--prot 53", "protocol"),
        ("--port", "needs a value"),
        ("(--port 53", "parenthesis"),
        ("--port 53 or", "missing"),
        ("--port 53)", "not expected"),
        ('--pod "x', "quotation"),
        ("--port 99999", "99999"),
        ("--verdict MAYBE", "MAYBE"),
        ("(" * 60 + "--port 1", "levels"),
        ("x" * 5000, "longer"),
    ],
)
def test_a_broken_filter_is_refused_with_the_word_that_is_wrong(text: str, word: str) -> None:
    with pytest.raises(BadQuery, match=word):
        parse_query(text)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("", "flowscope observe"),
        ("pod=shop/cart --not --port 53", "flowscope observe --pod shop/cart --not --port 53"),
        ("--label 'a in (b)'", "flowscope observe --label 'a in (b)'"),
        ("--verdict DROPPED and not --to-port 53", "flowscope observe --allowlist '{\"verdict\":[\"DROPPED\"]}' "
            "--denylist '{\"destination_port\":[\"53\"]}'"),
        ("--verdict DROPPED and (--to-port 1 or --to-port 2)", None),
    ],
)  # fmt: skip
def test_a_filter_is_told_as_a_command_line_where_one_can_say_it(text: str, command: str | None) -> None:
    assert parse_query(text).command() == command


def test_lost_events_pass_every_filter() -> None:
    shop = Shop()
    shop.add_now(shop.lost(5))
    rows = shop.hub.ring.slice(0, 1)
    assert parse_query("--verdict DROPPED").mask(rows, shop.tables).tolist() == [True]


def test_conditions_are_named_one_by_one() -> None:
    conditions = [words for words, _ in parse_query("--verdict DROPPED --port 53 and not --pod a/b").conditions()]
    assert conditions == ["--verdict DROPPED", "--port 53", "not --pod a/b"]


WORDS = st.sampled_from(
    ["--port", "53", "and", "or", "not", "(", ")", "--verdict", "DROPPED", '"', "pod=x", "--not", "a/b", "-n"]
)


@settings(max_examples=200)
@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=40))
def test_any_text_is_understood_or_refused(text: str) -> None:
    shop = Shop(7)
    try:
        query = parse_query(text)
    except BadQuery:
        return
    shop.add_now(shop.row(shop.pod("a"), shop.pod("b")))
    assert query.mask(shop.hub.ring.slice(0, 1), shop.tables).dtype == np.bool_
