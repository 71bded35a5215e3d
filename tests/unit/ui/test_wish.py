"""Messages of a page, good and bad."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ui.layouts import MOST_VIEWS, Layout, Layouts
from ui.wish import BadMessage, LayoutNote, Wish, parse


def test_a_wish_has_usual_values() -> None:
    wish = parse('{"type": "subscribe"}')
    assert isinstance(wish, Wish)
    assert (wish.filter, wish.range, wish.view) == ("", None, "map")


@pytest.mark.parametrize(
    ("message", "control"),
    [
        ("{", "message"),
        ("[]", "message"),
        ('{"type": "nothing"}', "message"),
        ({"filter": 5}, "filter"),
        ({"range": [5, 1]}, "range"),
        ({"range": ["a", "b"]}, "range"),
        ({"range": [-1, 5]}, "range"),
        ({"compare": [9, 9]}, "compare"),
        ({"columns": ["secrets"]}, "columns"),
        ({"view": "none"}, "message"),
        ({"unknown": 1}, "message"),
        ({"bar_s": 10**9}, "message"),
    ],
)
def test_a_bad_message_names_the_control_that_is_wrong(message: object, control: str) -> None:
    text = message if isinstance(message, str) else json.dumps({"type": "subscribe", **dict(message)})  # type: ignore[call-overload]
    with pytest.raises(BadMessage) as error:
        parse(text)
    assert error.value.control == control


def test_a_filter_is_refused_beside_the_filter_box() -> None:
    wish = parse('{"type": "subscribe", "filter": "--nothing"}')
    assert isinstance(wish, Wish)
    with pytest.raises(BadMessage) as error:
        wish.query()
    assert error.value.control == "filter"


@settings(max_examples=100)
@given(
    st.text()
    | st.recursive(st.none() | st.integers() | st.text(), lambda s: st.dictionaries(st.text(), s) | st.lists(s)).map(
        json.dumps
    )
)
def test_any_text_is_a_message_or_refused(text: str) -> None:
    try:
        parse(text)
    except BadMessage:
        return


@pytest.mark.parametrize("place", [[1e9, 0], ["x", 0], [1], [float("nan"), 0]])
def test_places_off_the_map_are_refused(place: list[object]) -> None:
    with pytest.raises(BadMessage):
        parse(json.dumps({"type": "layout", "view": "", "layout": {"places": {"a": place}}}))


def test_a_layout_is_kept_over_a_restart_and_grows_its_version(tmp_path: Path) -> None:
    path = tmp_path / "layouts.json"
    layouts = Layouts(path)
    note = parse(
        json.dumps(
            {
                "type": "layout",
                "view": "v",
                "layout": {"places": {"a": [1, 2]}, "routes": {"a>b": {"points": [[0, 0], [5, 5]]}}, "pinned": ["a"]},
            }
        )
    )
    assert isinstance(note, LayoutNote)
    layouts.put("v", note.layout)
    assert layouts.put("v", note.layout).version == 2
    found = Layouts(path).get("v")
    assert found is not None
    assert (found.places, found.pinned) == ({"a": (1, 2)}, ["a"])


def test_a_damaged_layout_file_is_no_reason_not_to_start(tmp_path: Path) -> None:
    path = tmp_path / "layouts.json"
    path.write_text('{"v": {"places": "x"}}')
    assert Layouts(path).get("v") is None


def test_the_least_used_layouts_are_forgotten() -> None:
    layouts = Layouts()
    for number in range(MOST_VIEWS + 5):
        layouts.put(str(number), Layout(places={}))
        layouts.get("0")
    assert layouts.get("0") is not None
    assert layouts.get("1") is None
