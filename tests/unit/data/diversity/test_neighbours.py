"""Neighbours by blocks are those of a plain loop over all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.unit.data.diversity.vectors import drawn, unit
from zephyr_ray.data.diversity import neighbours
from zephyr_ray.data.diversity.neighbours import Pair, nearest, nearest_earlier, nearest_pairs


@pytest.mark.parametrize("block", [1, 7, 512])
def test_they_are_the_ones_of_a_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    vectors = drawn(40)
    numbers, cosines = nearest(vectors)
    earlier = nearest_earlier(vectors)
    for one in range(40):
        by_other = {other: float(vectors[one] @ vectors[other]) for other in range(40) if other != one}
        assert numbers[one] == max(by_other, key=by_other.__getitem__)
        assert cosines[one] == pytest.approx(max(by_other.values()), abs=1e-6)
        if one:
            best = max(cosine for other, cosine in by_other.items() if other < one)
            assert earlier[one] == pytest.approx(best, abs=1e-6)
    assert math.isnan(earlier[0])


def test_a_vector_is_in_one_pair() -> None:
    """Three equal ones are one pair, whose third comes after a pair that is farther apart."""
    vectors = unit([[1, 0, 0], [1, 0, 0], [0, 1, 0.1], [0, 1, 0], [1, 0, 0], [0, 0, 1]])
    equal, near = nearest_pairs(*nearest(vectors), 10)
    assert equal == Pair(0, 1, 1.0)
    assert near[:2] == (2, 3)
    assert near.similarity == pytest.approx(1 / math.sqrt(1.01), abs=1e-6)
    assert len(nearest_pairs(*nearest(vectors), 1)) == 1


def test_one_vector_has_no_neighbour() -> None:
    with pytest.raises(ValueError, match="no neighbour"):
        nearest(drawn(1))
    assert np.isnan(nearest_earlier(drawn(1))).tolist() == [True]
    assert nearest_earlier(drawn(0)).shape == (0,)
