"""The interval that holds at all looks: by hand, against its own definition, and how often it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.sequential_stop import stops
from zephyr_ray.evaluation.sequential import FRACTIONS, decide, interval_at_any_time, prompt_means


def wealth(outcomes: list[float], mean: float) -> float:
    """One bet after the other, as a gambler has it who bets that the mean is above `mean`."""
    total = 0.0
    for fraction in FRACTIONS:
        own = 1.0
        for outcome in outcomes:
            own *= 1 + fraction * (outcome - mean) / mean
        total += own
    return total / len(FRACTIONS)


def test_the_bound_is_where_the_wealth_reaches_its_limit() -> None:
    outcomes = [1.0, 0.5, 1.0, 1.0, 0.0, 0.7, 1.0, 1.0] * 5
    low, high = interval_at_any_time(np.array(outcomes))
    assert wealth(outcomes, low) == pytest.approx(40, rel=1e-4)
    assert wealth([1 - outcome for outcome in outcomes], 1 - high) == pytest.approx(40, rel=1e-4)
    assert 0 < low < np.mean(outcomes) < high < 1


def test_a_bet_at_the_true_mean_has_the_expectation_1() -> None:
    """All sequences of three outcomes 0 and 1 with the probability 0.3 of a 1, each with its wealth."""
    expected = 0.0
    for number in range(8):
        drawn = [float(number >> place & 1) for place in range(3)]
        expected += math.prod(0.3 if each else 0.7 for each in drawn) * wealth(drawn, 0.3)
    assert expected == pytest.approx(1)


def test_the_ends() -> None:
    assert interval_at_any_time(np.array([])) == (0, 1)
    low, high = interval_at_any_time(np.ones(200))
    assert low > 0.95
    assert high == 1
    assert interval_at_any_time(np.zeros(200)) == pytest.approx((1 - high, 1 - low))
    narrow = interval_at_any_time(np.full(500, 0.5))  # ties alone say that the mean is 1/2
    assert narrow[0] < 0.5 < narrow[1]
    assert narrow[1] - narrow[0] < 0.1


def test_the_first_look_that_excludes_one_half() -> None:
    """The decision is that of the interval at each look."""
    drawn = np.random.default_rng(1).choice([0.0, 0.5, 1.0], size=300, p=[0.25, 0.2, 0.55])
    looks = [*range(30, 300, 30), 300]
    first = next(look for look in looks if interval_at_any_time(drawn[:look])[0] > 0.5)
    decision = decide(drawn, block=30)
    assert (decision.winner, decision.after) == ("a", first)
    assert decision.interval == interval_at_any_time(drawn[:first])
    assert decide(1 - drawn, block=30)[:2] == ("b", first)


def test_nothing_is_decided_by_few_or_equal_outcomes() -> None:
    assert decide(np.ones(3))[:2] == (None, 3)
    assert decide(np.tile([0.0, 1.0], 50))[:2] == (None, 100)


def test_a_prompt_is_one_outcome() -> None:
    assert prompt_means([1.0, 0.0, 1.0, 0.5], ["x", "x", "y", "x"]).tolist() == [0.5, 1.0]


def test_stopping_early_is_wrong_in_less_than_5_percent_where_a_bootstrap_is_wrong_in_a_quarter() -> None:
    """Equal models, a look after every 20 of 400 prompts."""
    at_any_time, bootstrap = (stops(rule, 0.5, runs=150, prompts=400) for rule in ("at any time", "bootstrap"))
    assert at_any_time.wrong <= 0.05
    assert bootstrap.wrong > 0.15


@pytest.mark.parametrize(("win_rate", "saved"), [(0.6, 0.4), (0.7, 0.8)])
def test_what_it_saves(win_rate: float, saved: float) -> None:
    found = stops("at any time", win_rate, runs=100, prompts=400)
    assert found.decided > 0.85
    assert found.wrong == 0
    assert found.saved > saved
