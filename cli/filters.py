"""Filter flags: the words of model.filter_words.py as flags of a command line.

In:        filter flags in the order in which they stand.
Out:       FILTER_FLAGS; `filters_of`: the FilterSet that they make.
Elsewhere: model.filter_words.py says what each word stands for.
"""

from __future__ import annotations

from typing import Final

from cli.command import Flag
from cli.flags import Kind
from model.filter_words import FILTER_WORDS, PROTOCOLS, TYPES, VERDICTS, Filter, FilterSet, FilterWord, event_type

__all__ = ["FILTER_FLAGS", "PROTOCOLS", "TYPES", "VERDICTS", "Filter", "FilterSet", "event_type", "filters_of"]

_KEY: Final = "filters"
"""Where the flags of one command line meet among its values; no flag has this name."""

FILTER: Final = Kind(type_name="filter", parse=lambda text, _: text)
FILTER_SWITCH: Final = Kind(type_name="filter", parse=lambda text, _: text, bare="true")

_GROUP: Final = "Filters (a flow must match all flags used, and one of the values of each)"


def filters_of(values: dict[str, object]) -> FilterSet:
    """The filters among the values of a parsed command line."""
    filters = values.setdefault(_KEY, FilterSet())
    assert isinstance(filters, FilterSet)
    return filters


def _flag(word: FilterWord) -> Flag:
    return Flag(
        name=word.name,
        short=word.short,
        help=word.help,
        kind=FILTER if word.value else FILTER_SWITCH,
        value_name=word.value,
        group=_GROUP,
        choices=word.choices,
        completes=word.completes,
        store=lambda values, text: filters_of(values).use(word.name, text),
    )


FILTER_FLAGS: Final[tuple[Flag, ...]] = tuple(map(_flag, FILTER_WORDS))
