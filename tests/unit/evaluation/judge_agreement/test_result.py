"""A judge against people: verdicts from ratings, people's agreement as the bound, everything by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zephyr_ray.evaluation.agreement import Verdict
from zephyr_ray.evaluation.judge_agreement.people import among_people, majority, with_one_person
from zephyr_ray.evaluation.judge_agreement.result import as_json, compare_with_people, table_lines, verdict_rows
from zephyr_ray.evaluation.judge_agreement.verdicts import replies_of


def opinion(
    rating: float | None, position: int, repeat: int = 0, is_reversed: bool = False, **more: Any
) -> dict[str, Any]:
    where = {"judge": "j", "repeat": repeat, "is_reversed": is_reversed, "position": position}
    return {**where, "aspect": "overall", "rating": rating, **more}


def completion(*opinions: dict[str, Any], score: float | None = None) -> dict[str, Any]:
    return {"overall_score": score, "opinions": list(opinions)}


def seen_both_ways(a: tuple[float | None, ...], b: tuple[float | None, ...]) -> list[dict[str, Any]]:
    """Ratings with A first and B first of the first repeat, and with A first of the second, whose order is B, A."""
    return [
        completion(
            opinion(ratings[0], place),
            opinion(ratings[1], 1 - place, is_reversed=True),
            opinion(None, 1 - place, repeat=1),
            opinion(ratings[2], place, repeat=1, is_reversed=True),
        )
        for place, ratings in enumerate((a, b))
    ]


def test_verdicts_by_order_and_repeat() -> None:
    a, b = seen_both_ways((7, 5, 6), (5, 7, 6))
    assert replies_of(a, b) == {"verdict": "a", "swapped_verdict": "b", "retest_verdict": "tie"}
    a, b = seen_both_ways((7, None, 6), (5, 7, 8))
    assert replies_of(a, b) == {"verdict": "a", "swapped_verdict": None, "retest_verdict": "b"}


def test_a_score_alone_has_no_order() -> None:
    assert replies_of(completion(score=1.5), completion(score=1.0)) == {"verdict": "a"}
    assert replies_of(completion(score=None), completion(score=1.0)) == {"verdict": None}


def test_answers_seen_one_by_one_have_a_retest_alone() -> None:
    a = completion(opinion(4, 0), opinion(3, 0, repeat=1))
    b = completion(opinion(2, 0), opinion(3, 0, repeat=1))
    assert replies_of(a, b) == {"verdict": "a", "retest_verdict": "tie"}


def test_several_judges_and_aspects() -> None:
    """Without an overall rating the mean of the aspects counts; several judges count by their mean difference."""
    a = completion(opinion(5, 0, aspect="honesty"), opinion(2, 0, aspect="truthfulness"), opinion(1, 0, judge="k"))
    b = completion(opinion(3, 1, aspect="honesty"), opinion(3, 1, aspect="truthfulness"), opinion(9, 1, judge="k"))
    assert replies_of(a, b, "j") == {"verdict": "a"}
    assert replies_of(a, b, "k") == {"verdict": "b"}
    assert replies_of(a, b) == {"verdict": "b"}


def test_majority() -> None:
    assert majority(("a", "b", "a")) == "a"
    assert majority(("a", "b")) is None
    assert majority(("tie",)) == "tie"


def test_people_by_hand() -> None:
    found = among_people([("a", "a"), ("a", "b"), ("b", "b", "b"), ("a",)])
    # ordered pairs: 2 aa, ab, ba, 6 bb: 8 of 10 equal; each side says a 3 and b 7 times: chance 0.09 + 0.49
    assert found.accuracy[:3] == (pytest.approx(0.8), 3, 4)
    assert found.kappa.value == pytest.approx((0.8 - 0.58) / (1 - 0.58))
    assert found.kappa.interval is not None
    assert among_people([("a",)]).kappa == (None, 0, 1, None)


def test_the_judge_with_one_person_by_hand() -> None:
    found = with_one_person([("a", "b"), ("b",), ("tie",)], ["a", "b", None])
    assert found.accuracy[:3] == (pytest.approx(2 / 3), 2, 3)
    # labels a b b against verdicts a a b: chance (1 * 2 + 2 * 1) / 9
    assert found.kappa.value == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))


def test_a_judge_that_is_one_of_the_people_agrees_as_they_do() -> None:
    labels: dict[str, tuple[Verdict, ...]] = {
        str(number): ("a", "b", "a") if number % 3 else ("tie", "tie", "b") for number in range(9)
    }
    first = {
        name: {"completions": [completion(score={"a": 2, "b": 0, "tie": 1}[given[0]]), completion(score=1)]}
        for name, given in labels.items()
    }
    found = compare_with_people(labels, first)
    assert found.judge.accuracy.value == 1.0
    assert found.people.accuracy.n == found.with_one_person.accuracy.n == 9
    assert found.no_majority == 0
    assert found.judges == {}


def test_what_is_written() -> None:
    a, b = seen_both_ways((7, 7, 7), (5, 5, 5))
    labels: dict[str, Any] = {"1": ("a", "a"), "2": ("b", "a"), "3": ("a",)}
    rows = {"1": {"completions": [a, b]}, "2": {"completions": [b, a]}}
    found = compare_with_people(labels, rows)
    told = json.loads(json.dumps(as_json(found), allow_nan=False))
    judge = told["judge"]
    assert (judge["accuracy"], judge["swap_consistency"], judge["retest"]) == (1.0, 1.0, 1.0)
    assert judge["parse_rate"] == pytest.approx(2 / 3)  # the third was given up
    assert told["people"]["accuracy"]["n"] == 2
    assert told["no_majority"] == 1
    assert verdict_rows(labels, rows)[1] == {
        "id": "2",
        "label": None,
        "verdict": "b",
        "swapped_verdict": "b",
        "retest_verdict": None,
    }
    assert any(line.startswith("a person with another one") for line in table_lines(found))
