"""Dialogues are put in the order of the plan, and a method that comes to repeat itself is seen to."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.data.diversity.vectors import drawn, unit
from zephyr_ray.data.diversity.generations import curves, order_of


def test_the_order_of_the_plan() -> None:
    expected = [
        "magpie:a:2",
        "magpie:a:10",
        "self_instruct:a:2.3.9",
        "self_instruct:a:2.14.3",
        "self_instruct:a:10.1.1",
        "simulated_user:a:s3://b/f.jsonl:9",
        "simulated_user:a:s3://b/f.jsonl:1/2",
        "simulated_user:a:s3://b/f.jsonl:10/11",
    ]
    assert sorted(expected[3:] + expected[:3], key=lambda each: (each.partition(":")[0], order_of(each))) == expected
    assert order_of("magpie:host:80:7") == (7,)  # a teacher's name has what it likes


def test_means_over_ranges_by_hand() -> None:
    """Directions of a right angle, and every second one after the twentieth the one before it."""
    axes = np.eye(30, dtype=np.float32)
    vectors = axes[[*range(20), *(20 + number // 2 for number in range(20))]]
    curve = curves([f"magpie:t:{number + 1}" for number in range(40)], vectors, 0)["magpie"]
    assert curve.made == [10, 20, 30, 40]
    assert curve.in_order == [0, 0, 0.5, 0.5]


def test_a_method_that_comes_to_repeat_itself() -> None:
    """The later half lies close together, in the files before the earlier one: in order the last are more alike than in
    random order, and the first less."""
    late = unit(drawn(1, 16) + 0.1 * drawn(150, 16, seed=1))
    vectors = np.concatenate([late, drawn(150, 16, seed=2)])
    sources = [f"self_instruct:t:2.{number}.1" for number in range(150)] + [
        f"self_instruct:t:1.{number}.1" for number in range(150)
    ]
    curve = curves(sources, vectors, 0)["self_instruct"]
    assert len(curve.made) == 20
    assert curve.in_order[-1] > curve.shuffled[-1] + 0.1
    assert curve.in_order[9] < curve.shuffled[9] - 0.1


def test_methods_are_apart() -> None:
    vectors = np.repeat(drawn(2, 16), 2, axis=0)
    sources = ["magpie:t:1", "self_instruct:t:1.1.1", "self_instruct:t:1.1.2", "simulated_user:t:f:1"]
    found = curves(sources, vectors, 0)
    assert [*found] == ["self_instruct"]
    assert found["self_instruct"].made == [2]
    assert found["self_instruct"].in_order == [pytest.approx(float(vectors[0] @ vectors[2]), abs=1e-6)]
