"""Jaccard similarities by hand, and pairs of rows as numbers."""

from __future__ import annotations

import numpy as np

from zephyr_ray.data.cleaning import row_pairs
from zephyr_ray.data.cleaning.shingles import Shingles


def test_jaccard_by_hand() -> None:
    sets = [{1, 2, 3, 4}, {2, 3, 4, 5}, {9}, {1, 2, 3, 4}]  # of the rows 10, 11, 20, 30
    offsets = np.cumsum([0, *map(len, sets)])
    hashes = np.array([number for each in sets for number in sorted(each)], np.uint64)
    pairs = np.sort(row_pairs.paired(np.array([10, 30, 30, 20]), np.array([11, 10, 11, 11])))
    larger, smaller = row_pairs.numbers_of(pairs)
    assert list(zip(larger.tolist(), smaller.tolist(), strict=True)) == [(11, 10), (20, 11), (30, 10), (30, 11)]
    found = row_pairs.jaccard(pairs, np.array([10, 11, 20, 30]), Shingles(hashes, offsets))
    assert found.tolist() == [3 / 5, 0, 1, 3 / 5]


def test_as_sets_have_it() -> None:
    rng = np.random.default_rng(0)
    sets = [set(rng.integers(40, size=rng.integers(1, 60)).tolist()) for _ in range(40)]
    hashes = np.array([number for each in sets for number in sorted(each)], np.uint64)
    pairs = np.unique(row_pairs.paired(*rng.integers(40, size=(2, 300))))
    found = row_pairs.jaccard(pairs, np.arange(40), Shingles(hashes, np.cumsum([0, *map(len, sets)])))
    both = [(sets[one], sets[other]) for one, other in zip(*row_pairs.numbers_of(pairs), strict=True)]
    assert found.tolist() == [len(one & other) / len(one | other) for one, other in both]


def test_parts_hold_each_pair_once_and_a_row_s_pairs_together() -> None:
    first, second = np.random.default_rng(0).integers(100, size=(2, 500))
    pairs = np.unique(row_pairs.paired(first, second))
    parts = [row_pairs.part_of(pairs, part, 7, 100) for part in range(7)]
    assert np.array_equal(np.concatenate(parts), pairs)
    rows = [set(row_pairs.numbers_of(part)[0].tolist()) for part in parts]
    assert sum(map(len, rows)) == len(set.union(*rows))
