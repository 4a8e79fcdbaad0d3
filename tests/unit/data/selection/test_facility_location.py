"""Chosen rows stand for all: better than drawn ones, and nearly as well as the best choice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from zephyr_ray.data.selection import facility_location
from zephyr_ray.data.selection.facility_location import choose


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clusters(count: int, rows: int, seed: int = 0) -> np.ndarray:
    """Rows around some directions; the n-th direction has about half as many as the one before."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(count, 16))
    which = np.minimum(generator.geometric(0.5, rows) - 1, count - 1)
    return unit(centres[which] + 0.2 * generator.normal(size=(rows, 16)))


def value(vectors: np.ndarray, places: np.ndarray) -> float:
    return float((vectors @ vectors[places].T).max(axis=1).sum())


def test_every_cluster_is_found_by_as_many_rows_as_there_are_clusters() -> None:
    vectors = clusters(6, 600)
    places = choose(vectors, vectors, 6, seed=0)
    drawn = [np.random.default_rng(each).choice(600, 6, replace=False) for each in range(20)]
    assert value(vectors, places) > max(value(vectors, each) for each in drawn)
    assert (vectors @ vectors[places].T).max(axis=1).min() > 0.5


@pytest.mark.parametrize("seed", range(5))
def test_the_value_is_near_that_of_the_best_choice(seed: int) -> None:
    vectors = unit(np.random.default_rng(seed).normal(size=(14, 4)))
    best = max(value(vectors, np.array(each)) for each in itertools.combinations(range(14), 3))
    assert value(vectors, choose(vectors, vectors, 3, seed)) >= 0.8 * best


def test_each_row_is_chosen_once_and_all_are_where_all_are_asked_for() -> None:
    vectors = clusters(3, 50)
    assert sorted(choose(vectors, vectors, 50, seed=1)) == list(range(50))
    assert len(set(choose(vectors, vectors, 20, seed=1))) == 20


def test_repeated_vectors_are_chosen_last() -> None:
    vectors = np.repeat(unit(np.eye(5)), 4, axis=0)
    assert {place // 4 for place in choose(vectors, vectors, 5, seed=0)} == set(range(5))


def parts_of(vectors: np.ndarray, ids: np.ndarray, parts: int) -> list[facility_location.Vectors]:
    return [(ids[:, part::parts], vectors[part::parts]) for part in range(parts)]


def test_what_is_chosen_does_not_depend_on_how_rows_lie_in_files() -> None:
    vectors = clusters(8, 400)
    ids = np.random.default_rng(0).integers(0, 1 << 63, size=(2, 400)).astype(np.uint64)
    order = np.random.default_rng(1).permutation(400)
    one = facility_location._offer(9, 3, 100, *parts_of(vectors, ids, 1))
    other = facility_location._offer(9, 3, 100, *parts_of(vectors[order], ids[:, order], 7))
    np.testing.assert_array_equal(one[0][0], other[0][0])
    np.testing.assert_array_equal(one[1], other[1])


def test_shards_that_offer_rows_lose_little() -> None:
    vectors = clusters(12, 2000)
    ids = np.random.default_rng(0).integers(0, 1 << 63, size=(2, 2000)).astype(np.uint64)
    offered = [facility_location._offer(10, 0, 500, each) for each in parts_of(vectors, ids, 4)]
    found, count = facility_location._choose(20, 0, *offered)
    places = [int(np.flatnonzero((ids[0] == high) & (ids[1] == low))[0]) for high, low in found.T]
    assert count == 20
    assert value(vectors, np.array(places)) >= 0.995 * value(vectors, choose(vectors, vectors, 20, seed=0))
