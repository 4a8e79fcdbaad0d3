"""When enough is judged: an interval of the win rate that holds however often one looks at it.

A bootstrap interval holds for one look. Who looks after every block of judgments, and stops when it excludes 50 %, is
wrong far more often than in 5 % of the cases. This interval comes from betting against each mean m (Waudby-Smith and
Ramdas, Estimating means of bounded random variables by betting, arXiv 2010.09686): a gambler who bets a fraction f of
the wealth that the mean is above m multiplies it, at an outcome x in [0, 1], by

    1 - f + f x / m,

whose expectation is at most 1 if the mean is at most m. The wealth is then a nonnegative supermartingale that begins
with 1, which ever reaches 2 / alpha with a probability of at most alpha / 2 (Ville's inequality). Here the wealth is
divided equally among the bets `FRACTIONS`, and nothing has to be tuned or estimated; betting that the mean is below m
is the same with 1 - x and 1 - m. What neither gambler has refuted is the interval. The probability that it ever
excludes the true mean, at any of infinitely many looks, is at most alpha.

The outcomes must come in an order that has nothing to do with them: a file is shuffled by seed first.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from zephyr_ray.evaluation.intervals import LEVEL

FRACTIONS = np.geomspace(0.03, 0.7, 12)
"""The bets: small ones tell small differences, after many outcomes; large ones large differences, after few."""
BLOCK = 20
"""Prompts between two looks."""


class Decision(NamedTuple):
    """Where one could have stopped."""

    winner: Literal["a", "b"] | None
    """Whose win rate is above 50 % by the first interval that excludes 50 %; None: none does."""
    after: int
    """Prompts that were judged by then; all of them without a winner."""
    interval: tuple[float, float]
    """The interval of the win rate at that look, in [0, 1]."""


def interval_at_any_time(outcomes: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The interval of the mean that holds at all looks together.

    Args:
        outcomes: [outcomes], each in [0, 1], independent with one mean. None at all gives 0 to 1.
        level: Its confidence.
    """
    return _lower_bound(outcomes, level), 1.0 - _lower_bound(1.0 - outcomes, level)


def decide(outcomes: np.ndarray, block: int = BLOCK, level: float = LEVEL) -> Decision:
    """The first look, after every block of outcomes and after the last, at which the interval excludes 1/2.

    Args:
        outcomes: [outcomes], each in [0, 1], in the order in which they come.
        block: Outcomes between two looks.
        level: The confidence that holds for all looks together.
    """
    looks = np.array([*range(block, len(outcomes), block), len(outcomes)])
    for_a, for_b = (_log_wealth_above(each, 0.5)[looks - 1] for each in (outcomes, 1.0 - outcomes))
    decided = np.maximum(for_a, for_b) >= _log_limit(level)
    first = int(decided.argmax())
    if not decided[first]:
        return Decision(None, len(outcomes), interval_at_any_time(outcomes, level))
    after = int(looks[first])
    return Decision("a" if for_a[first] > for_b[first] else "b", after, interval_at_any_time(outcomes[:after], level))


def prompt_means(outcomes: Sequence[float], prompts: Sequence[Hashable]) -> np.ndarray:
    """[prompts], the mean outcome of each, in the order in which they first occur: these are independent."""
    by_prompt: dict[Hashable, list[float]] = {}
    for outcome, prompt in zip(outcomes, prompts, strict=True):
        by_prompt.setdefault(prompt, []).append(outcome)
    return np.array([math.fsum(each) / len(each) for each in by_prompt.values()])


def _log_limit(level: float) -> float:
    """Log of the wealth at which a mean is refuted from one side."""
    return math.log(2 / (1 - level))


def _log_wealth_above(outcomes: np.ndarray, mean: float) -> np.ndarray:
    """[outcomes], the log of the wealth after each of them of who bets that their mean is above `mean`."""
    factors = 1 - FRACTIONS + FRACTIONS * (outcomes / mean)[:, None]
    return np.logaddexp.reduce(np.log(factors).cumsum(axis=0), axis=1) - math.log(len(FRACTIONS))


def _lower_bound(outcomes: np.ndarray, level: float) -> float:
    """The largest mean that is refuted from below; the wealth falls as the mean rises."""
    from scipy.optimize import brentq

    values, counts = np.unique(outcomes, return_counts=True)
    limit = _log_limit(level)

    def above_limit(mean: float) -> float:
        factors = 1 - FRACTIONS + FRACTIONS * (values / mean)[:, None]
        wealth = np.logaddexp.reduce(counts @ np.log(factors)) - math.log(len(FRACTIONS))
        return float(wealth) - limit

    least = 1e-9
    return float(brentq(above_limit, least, 1.0, xtol=1e-9)) if len(values) and above_limit(least) > 0 else 0.0
