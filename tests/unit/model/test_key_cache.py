"""The dictionary of columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decode.cache import KeyCache

NUMBERS = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))


@settings(max_examples=100)
@given(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=50), max_size=6), st.integers(1, 40))
def test_every_key_has_the_value_that_was_made_for_it(batches: list[list[tuple[int, int]]], limit: int) -> None:
    cache = KeyCache(2, limit)
    for batch in batches:
        columns = [np.array([key[i] for key in batch], np.uint64) for i in range(2)]
        values = cache.look_up(columns, lambda a, b: (a * 31 + b) % 1000)
        assert values.tolist() == [(a * 31 + b) % 1000 for a, b in batch]


def test_a_value_is_made_once_per_key() -> None:
    cache, made = KeyCache(1, 1 << 16), list[int]()

    def make(key: int) -> int:
        made.append(key)
        return 7

    keys = np.arange(5000, dtype=np.uint64) % np.uint64(3000)
    for _ in range(3):
        cache.look_up([keys], make)
    assert sorted(made) == list(range(3000))


def test_a_full_cache_starts_anew_and_stays_within_its_limit() -> None:
    cache = KeyCache(1, 100)
    for start in range(0, 1000, 50):
        cache.look_up([np.arange(start, start + 50, dtype=np.uint64)], lambda key: key)
        assert len(cache) <= 100
    assert cache.cleared
