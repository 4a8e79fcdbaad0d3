"""Agreement of judges, repeats and orders: figures worked out by hand, or published."""

from __future__ import annotations

import random
from typing import Any

import pytest

from zephyr_ray.judging.agreement import Agreement, AgreementCounter, DisagreementCounter, disagreement, interval_alpha


def judged(raters: dict[tuple[str, int, bool], list[float | None]], aspect: str = "overall") -> dict[str, Any]:
    """A row of judgments, with what each (judge, repeat, is_reversed) gave its answers."""
    answers = max(map(len, raters.values()))
    completions = []
    for number in range(answers):
        opinions = [
            {"judge": j, "repeat": r, "is_reversed": v, "position": 0, "aspect": aspect, "rating": given[number]}
            for (j, r, v), given in raters.items()
        ]
        completions.append({"opinions": opinions})
    return {"completions": completions}


def counted(kind: Any, *rows: dict[str, Any]) -> dict[str, Agreement]:
    counter = AgreementCounter(kind)
    for row in rows:
        counter.add(row)
    return counter.result()


def test_orders_by_hand() -> None:
    """Ratings 8, 5, 5 and, reversed, 6, 7, 5.

    Pairs: (8,5)-(6,7) opposite, (8,5)-(6,5) same, (5,5)-(7,5) neither: one of three each. Differences 2, 2, 0.
    Alpha: observed 2 * (4 + 4 + 0) = 16; values 8, 5, 5, 5, 6, 7, squared differences of all ordered pairs:
    n * sum of squares - square of sum, twice: 2 * (6 * 224 - 36^2) = 96; 1 - 5 * 16 / 96 = 1/6.
    """
    row = judged({("j", 0, False): [8, 5, 5], ("j", 0, True): [6, 7, 5]})
    (result,) = counted("orders", row).values()
    assert result == pytest.approx(Agreement(3, 1 / 3, 1 / 3, 3, 4 / 3, 1 / 6))


def test_an_order_is_compared_with_the_same_judge_and_repeat_only() -> None:
    row = judged({("a", 0, False): [1, 2], ("b", 0, True): [1, 2], ("a", 1, True): [1, 2]})
    assert counted("orders", row) == {}


def test_repeats_are_those_of_one_judge_and_judges_those_of_one_repeat() -> None:
    row = judged(
        {
            ("a", 0, False): [1, 2],
            ("a", 1, False): [1, 3],
            ("b", 0, False): [5, 2],
            ("b", 1, False): [5, 3],
            ("a", 0, True): [9, 9],
        }
    )
    repeats, judges = counted("repeats", row)["overall"], counted("judges", row)["overall"]
    assert (repeats.pairs, repeats.same_order, repeats.opposite_order, repeats.mean_difference) == (2, 1, 0, 0.5)
    assert (judges.pairs, judges.same_order, judges.opposite_order, judges.mean_difference) == (2, 0, 1, 2)


def test_missing_ratings_are_left_out() -> None:
    row = judged({("a", 0, False): [1, None, 3], ("b", 0, False): [1, 2, None]})
    assert counted("judges", row)["overall"] == Agreement(0, None, None, 1, 0.0, None)


def test_aspects_are_counted_apart() -> None:
    raters: dict[tuple[str, int, bool], list[float | None]] = {("a", 0, False): [1, 2], ("b", 0, False): [1, 2]}
    found = counted("judges", judged(raters, "honesty"), judged(raters, "overall"), judged(raters, "overall"))
    assert {aspect: result.pairs for aspect, result in found.items()} == {"honesty": 1, "overall": 2}


KRIPPENDORFF: list[list[float | None]] = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
"""Four observers and twelve units: the example of "Computing Krippendorff's Alpha-Reliability" (2011)."""


def test_alpha_is_the_published_one() -> None:
    row = judged({(name, 0, False): given for name, given in zip("abcd", KRIPPENDORFF, strict=True)})
    assert counted("judges", row)["overall"].alpha == pytest.approx(0.849, abs=5e-4)


def test_alpha_at_its_ends() -> None:
    assert interval_alpha({}) is None
    assert interval_alpha({(3, 3): 8}) is None
    assert interval_alpha({(1, 1): 4, (5, 5): 4}) == 1
    assert interval_alpha({(1, 5): 4, (5, 1): 4}) == pytest.approx(1 - 7 / 4)


@pytest.mark.parametrize("kind", ["orders", "repeats", "judges"])
def test_blocks_counted_apart_and_merged_give_what_one_count_gives(kind: Any) -> None:
    rng = random.Random(1)
    raters = [(judge, repeat, is_reversed) for judge in "ab" for repeat in (0, 1) for is_reversed in (False, True)]
    rows = [
        judged({rater: [rng.choice([None, 1, 2, 3, 4, 5]) for _ in range(4)] for rater in raters}) for _ in range(30)
    ]
    whole, left, right = AgreementCounter(kind), AgreementCounter(kind), AgreementCounter(kind)
    for index, row in enumerate(rows):
        whole.add(row)
        (left if index % 3 else right).add(row)
    left.merge(right)
    assert left.result()["overall"] == pytest.approx(whole.result()["overall"])


def completion(overall: float | None, *aspects: float | None) -> dict[str, Any]:
    names = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    annotations = {name: {"rating": rating} for name, rating in zip(names, aspects, strict=False)}
    return {"overall_score": overall, "annotations": dict.fromkeys(names) | annotations}


@pytest.mark.parametrize(
    ("answer", "distance"),
    [
        (completion(10, 1, 1, 1, 1), 1.0),
        (completion(1, 5), 1.0),
        (completion(10, 5, 5), 0.0),
        (completion(5.5, 3, None), 0.0),
        (completion(10, 5, 1), 0.5),  # the mean of 5 and 1 is half-way
        (completion(None, 5), None),
        (completion(5), None),
        (completion(5, None), None),
        ({"overall_score": 5, "annotations": None}, None),
    ],
)
def test_disagreement_is_a_distance_on_both_scales(answer: dict[str, Any], distance: float | None) -> None:
    assert disagreement(answer) == distance


def test_gross_disagreement_is_above_the_limit() -> None:
    first, second = DisagreementCounter(), DisagreementCounter()
    first.add({"completions": [completion(10, 1), completion(10, 5, 1), completion(5)]})
    second.add({"completions": [completion(10, 5)]})
    first.merge(second)
    assert first.result() == {"answers": 3, "gross": 1, "mean_distance": 0.5}
    assert DisagreementCounter().result() == {"answers": 0, "gross": 0, "mean_distance": None}
