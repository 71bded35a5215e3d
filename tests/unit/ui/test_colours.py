"""The colours of the page reach WCAG AA: 4.5 to 1 for text on what it stands on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSS = (Path(__file__).parents[3] / "ui/static/css/flowscope.css").read_text()
TEXT = ("text", "muted", "forwarded", "dropped", "redirected", "audit", "error", "accent")
GROUNDS = ("page", "card", "raised", "island")


def themes() -> dict[str, dict[str, str]]:
    blocks = re.findall(r"([^{}]+)\{([^{}]*--page:[^{}]*)\}", CSS)
    return {selector.strip(): dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", body)) for selector, body in blocks}


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_there_are_a_light_and_two_ways_to_a_dark_theme() -> None:
    assert len(themes()) == 3


@pytest.mark.parametrize("theme", themes())
def test_text_can_be_read_on_every_ground(theme: str) -> None:
    colours = themes()[theme]
    pairs = [(text, ground) for text in TEXT for ground in GROUNDS]
    pairs += [
        ("on-accent", "accent"),
        ("text", "hover"),
        ("text", "chosen"),
        ("text", "soft-dropped"),
        ("dropped", "soft-dropped"),
    ]
    low = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
