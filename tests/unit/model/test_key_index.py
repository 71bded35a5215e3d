"""Keys keep their numbers, whatever their hashes do."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.key_index import U64, KeyIndex, distinct

KEYS = st.lists(st.tuples(st.integers(0, 5), st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1))), max_size=60)


def array(keys: list[tuple[int, int]]) -> U64:
    return np.array(keys, np.uint64).reshape(-1, 2)


@given(KEYS, KEYS)
def test_numbers_count_up_and_stay(first: list[tuple[int, int]], more: list[tuple[int, int]]) -> None:
    index, numbers = KeyIndex(2), dict[tuple[int, int], int]()
    for keys in (first, more, first):
        new = [key for key in dict.fromkeys(keys) if key not in numbers]
        numbers.update({key: len(numbers) + at for at, key in enumerate(new)})
        index.add(array(new), index.hashes(array(new)))
        assert index.find(array(keys), index.hashes(array(keys))).tolist() == [numbers[key] for key in keys]
    assert len(index) == len(numbers)


def test_unknown_keys_are_minus_one_and_many_keys_fit() -> None:
    index = KeyIndex(2)
    keys = np.stack([np.arange(5000), np.arange(5000) * 7], axis=1).astype(np.uint64)
    assert (index.find(keys, index.hashes(keys)) == -1).all()
    index.add(keys[:4000], index.hashes(keys[:4000]))
    assert index.find(keys, index.hashes(keys)).tolist() == [*range(4000), *[-1] * 1000]
    index.clear()
    assert len(index) == 0
    assert (index.find(keys, index.hashes(keys)) == -1).all()


def test_equal_hashes_do_not_make_keys_equal() -> None:
    index = KeyIndex(2)
    keys = np.array([[1, 2], [3, 4], [5, 6]], np.uint64)
    same = np.full(3, 2**63, np.uint64)
    index.add(keys, same)
    assert index.find(keys[::-1], same).tolist() == [2, 1, 0]
    assert index.find(np.array([[9, 9]], np.uint64), same[:1]).tolist() == [-1]


@given(KEYS)
def test_distinct_gives_one_example_of_each_key(keys: list[tuple[int, int]]) -> None:
    examples, numbers = distinct(array(keys))
    assert len(examples) == len(set(keys))
    assert [keys[at] for at in examples[numbers].tolist()] == keys
