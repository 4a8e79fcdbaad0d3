"""A against B: every number by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from zephyr_ray.evaluation.agreement import Verdict
from zephyr_ray.evaluation.comparison import (
    Comparison,
    exchanged,
    outcome_of_scores,
    outcome_of_verdicts,
)
from zephyr_ray.evaluation.sequential import interval_at_any_time
from zephyr_ray.evaluation.versus import STOPPED, as_json, compare, compare_until_decided, sign_test, table_lines


def outcomes(*values: float) -> list[Comparison]:
    return [Comparison(place, value) for place, value in enumerate(values)]


@pytest.mark.parametrize(
    ("verdict", "swapped", "outcome"),
    [("a", "a", 1.0), ("b", "b", 0.0), ("a", "b", 0.5), ("tie", "a", 0.5), ("tie", "tie", 0.5), ("b", None, 0.0)],
)
def test_orders_that_disagree_are_a_tie(verdict: Verdict, swapped: Verdict | None, outcome: float) -> None:
    assert outcome_of_verdicts(verdict, swapped) == outcome


def test_the_higher_rating_wins() -> None:
    assert [outcome_of_scores(*scores) for scores in ((7, 6), (6, 7), (5, 5))] == [1.0, 0.0, 0.5]


def test_exchanged_twice_is_the_same() -> None:
    one = Comparison(1, 0.7, scores=(3, 2), orders=("a", "tie"), tokens=(10, 20), characters=(40, 90))
    other = exchanged(one)
    assert other.outcome == pytest.approx(0.3)
    assert (other.scores, other.orders, other.tokens, other.characters) == ((2, 3), ("tie", "b"), (20, 10), (90, 40))
    assert replace(exchanged(other), outcome=0.7) == one


def test_win_rate_and_sign_test_by_hand() -> None:
    rows = [*outcomes(1, 1, 1, 1, 1, 0, 0.5, 0.5), Comparison(8, None, "judge_error")]
    result = compare("m", "n", rows)
    assert (result.wins, result.losses, result.ties, result.prompts, result.comparisons) == (5, 1, 2, 8, 9)
    assert result.win_rate[:1] + result.win_rate[2:] == (pytest.approx(0.75), 8, None)
    # 5 or more, or 1 or fewer, of 6 fair coins: 2 (1 + 6) / 64
    assert result.sign_test == (pytest.approx(14 / 64), 5, 1, 2, None)
    assert result.left_out == {"judge_error": 1}
    assert result.sequential is not None
    assert result.sequential.decision[:2] == (None, 8)


def test_the_mirror_image() -> None:
    rows = [Comparison(place, place % 3 / 2, characters=(place * 7 % 11, 5)) for place in range(30)]
    one, other = compare("m", "n", rows), compare("n", "m", [exchanged(each) for each in rows])
    assert one.win_rate.value is not None
    assert other.win_rate.value == pytest.approx(1 - one.win_rate.value)
    assert other.sign_test.p_value == one.sign_test.p_value
    assert one.length_controlled.win_rate is not None
    assert other.length_controlled.win_rate == pytest.approx(1 - one.length_controlled.win_rate)


def test_comparisons_of_a_prompt_are_one_sign_and_no_news_for_the_interval() -> None:
    once = outcomes(1, 0, 1, 1, 0.5)
    thrice = compare("m", "n", once * 3)
    assert thrice.sign_test == sign_test(once)
    assert thrice.win_rate.interval == compare("m", "n", once).win_rate.interval
    assert thrice.win_rate.n == 15
    assert thrice.sequential == compare("m", "n", once).sequential


def test_ties_alone() -> None:
    told = as_json(compare("m", "n", outcomes(0.5, 0.5, 0.5)))
    assert (told["win_rate"], told["interval"], told["sign_test"]["p_value"]) == (0.5, None, None)
    assert "resamples do not vary" in told["reason"]
    assert told["sign_test"]["reason"] == "every prompt is a tie"
    assert told["length_controlled"]["win_rate"] is None


def test_one_prompt() -> None:
    result = compare("m", "n", [Comparison("x", 1.0), Comparison("x", 0.0)])
    assert result.win_rate == (0.5, None, 2, "an interval takes two prompts")
    assert result.sign_test.reason == "every prompt is a tie"


def test_ratings_and_categories() -> None:
    rows = [
        Comparison(place, outcome_of_scores(a, b), scores=(a, b), category=category)
        for place, (a, b, category) in enumerate([(5, 3, "math"), (4, 4, "math"), (1, 4, "writing")])
    ]
    result = compare("m", "n", rows)
    assert result.score_difference.value == pytest.approx((2 + 0 - 3) / 3)
    assert {name: mean.value for name, mean in result.categories.items()} == {"math": 0.75, "writing": 0.0}


def test_what_the_other_order_changes() -> None:
    orders: list[tuple[Verdict, Verdict]] = [("a", "a"), ("a", "b"), ("b", "a"), ("tie", "a"), ("a", "b")]
    rows = [Comparison(place, outcome_of_verdicts(*each), orders=each) for place, each in enumerate(orders)]
    assert compare("m", "n", rows).orders == (5, 1, 2, 1)


def test_json_and_table_say_the_same() -> None:
    result = compare("m", "n", outcomes(1, 1, 0, 0.5))
    told = json.loads(json.dumps(as_json(result), allow_nan=False))
    assert (told["win_rate"], told["n"], told["wins"]) == (0.625, 4, 2)
    lines = table_lines(result)
    assert lines[0] == "A = m, B = n: 4 of 4 comparisons count, over 4 prompts"
    assert "62.5 %" in lines[2]
    assert "A wins 2, B wins 1, ties 1; sign test over 3 prompts without a tie: p = 1" in lines


def test_judging_that_stopped_has_no_interval_for_one_look() -> None:
    rows = [Comparison(place, 1.0 if place % 8 else 0.0, characters=(place * 7 % 11, 5)) for place in range(40)]
    told = as_json(compare_until_decided("m", "n", rows, block=20))
    assert (told["win_rate"], told["interval"], told["reason"]) == (35 / 40, None, STOPPED)
    assert (told["sign_test"]["p_value"], told["sign_test"]["wins"]) == (None, 35)
    assert told["length_controlled"]["win_rate"] is not None
    assert told["length_controlled"]["interval"] is None
    assert told["sequential"]["decision"]["winner"] == "a"
    assert told["sequential"]["decision"]["after"] == 40
    outcomes_of = np.array([1.0 if place % 8 else 0.0 for place in range(40)])
    assert told["sequential"]["interval"] == interval_at_any_time(outcomes_of)
