"""Means of grouped numbers with 95 % intervals, by a bootstrap over groups."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
_TAILS = (100 * (1 - LEVEL) / 2, 100 - 100 * (1 - LEVEL) / 2)
RESAMPLES = 10_000
_DRAWN_AT_ONCE = 1 << 20  # groups, which keeps memory at some tens of megabytes


class Estimate(NamedTuple):
    """A mean and its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap(values: np.ndarray, groups: np.ndarray, *, resamples: int, seed: int) -> list[Estimate]:
    """The mean of each column with its percentile interval.

    This is the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13) over
    groups, because numbers of one group are not independent. A resample draws as many groups as there are, with
    replacement, each with all of its numbers (the cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their
    Application, 1997, section 3.8), and takes the mean of all drawn numbers. The columns are resampled together, so the
    interval of a column of differences is a paired one.

    Args:
        values: [numbers, columns].
        groups: [numbers], the group of each number.
        resamples: Number of resamples.
        seed: Seed of the random numbers.

    Raises:
        ValueError: There are fewer than two groups, so their variation is unknown.
    """
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    count, columns = len(sizes), values.shape[1]
    if count < 2:
        raise ValueError(f"{count} group; an interval takes two or more")
    sums = np.zeros((count, columns + 1))
    np.add.at(sums, group, np.column_stack([values.astype(np.float64), np.ones(len(values))]))
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, columns))
    step = max(1, _DRAWN_AT_ONCE // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        totals = times @ sums
        means[start : start + rows] = totals[:, :-1] / totals[:, -1:]
    low, high = np.percentile(means, _TAILS, axis=0)
    return [Estimate(*map(float, each)) for each in zip(values.mean(axis=0, dtype=np.float64), low, high, strict=True)]


def percentile_interval(resampled: np.ndarray) -> tuple[float, float] | None:
    """The interval of a number from what it is in resamples, [resamples]; those in which it is not defined (NaN) are
    left out. None if it is defined in none."""
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return None
    low, high = np.percentile(known, _TAILS)
    return float(low), float(high)


def mean_interval(values: Sequence[float], groups: Sequence[Hashable], *, seed: int = 0) -> tuple[float, float] | None:
    """The interval of one mean by `bootstrap` with `RESAMPLES` resamples; None with fewer than two groups."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    if len(numbers) < 2:
        return None
    column = np.array(values, dtype=np.float64)[:, None]
    (estimate,) = bootstrap(column, np.array([numbers[name] for name in groups]), resamples=RESAMPLES, seed=seed)
    return estimate.low, estimate.high
