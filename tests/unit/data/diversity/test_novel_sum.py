"""NovelSum equals its equations in a plain double loop, and says what it is meant to say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.unit.data.diversity.vectors import drawn, unit
from zephyr_ray.data.diversity import neighbours
from zephyr_ray.data.diversity.novel_sum import ALPHA, NEIGHBOURS, novel_sum


def by_loops(vectors: np.ndarray, beta: float) -> float:
    """The equations of the module's docstring."""
    points = [tuple(map(float, vector)) for vector in vectors]
    total = 0.0
    for place, one in enumerate(points):
        distances = []
        for other_place, other in enumerate(points):
            if other_place != place:
                distances.append(1 - math.fsum(a * b for a, b in zip(one, other, strict=True)))
        ranked = sorted(distances)
        weights = [rank**-ALPHA for rank in range(1, len(ranked) + 1)]
        novelty = sum(weight * distance for weight, distance in zip(weights, ranked, strict=True)) / sum(weights)
        squares = sorted(
            sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) for other in set(points) if other != one
        )
        near = squares[:NEIGHBOURS]
        total += (1 / (sum(near) / len(near) + 1e-9)) ** beta * novelty
    return total / len(points)


@pytest.mark.parametrize(("count", "block"), [(60, 512), (60, 7), (3, 512)])
def test_it_equals_its_equations(count: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    vectors = drawn(count)
    found = novel_sum(vectors)
    assert found.by_proximity == pytest.approx(by_loops(vectors, 0), rel=1e-5)
    assert found.by_proximity_and_density == pytest.approx(by_loops(vectors, 0.5), rel=1e-5)


def test_equal_points_count_once_in_the_density() -> None:
    vectors = np.concatenate([drawn(30), drawn(30)[:12]])
    assert novel_sum(vectors).by_proximity_and_density == pytest.approx(by_loops(vectors, 0.5), rel=1e-4)


def test_by_hand() -> None:
    """Two equal directions and one at a right angle: 2/3 0 + 1/3 1 for each of the twins, and 1 for the other."""
    assert novel_sum(unit([[1, 0], [1, 0], [0, 1]])).by_proximity == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)


def test_sameness_lowers_it() -> None:
    different = drawn(100, 32)
    same = unit(different[0] + 0.1 * drawn(100, 32, seed=1))
    half = np.concatenate([different[:50], different[:50]])
    assert novel_sum(same).by_proximity < novel_sum(half).by_proximity < novel_sum(different).by_proximity


def test_one_text_is_not_novel_among_others() -> None:
    with pytest.raises(ValueError, match="two texts"):
        novel_sum(drawn(1))
