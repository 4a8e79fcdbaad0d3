"""The bootstrap over groups: against what all resamples give, against scipy, and against resampling one at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from zephyr_ray.evaluation.intervals import bootstrap


def test_three_groups_by_hand() -> None:
    """Of three groups there are 27 resamples, and the quantiles of their means are known."""
    values, groups = np.array([0.0, 1.0, 5.0, 7.0, 2.0]), np.array(["a", "a", "b", "c", "c"])
    sums, sizes = [1.0, 5.0, 9.0], [2, 1, 2]
    means = [
        sum(sums[each] for each in drawn) / sum(sizes[each] for each in drawn)
        for drawn in itertools.product(range(3), repeat=3)
    ]
    (estimate,) = bootstrap(values[:, None], groups, resamples=20_000, seed=0)
    # 1/27 of the resamples are thrice a, and as many thrice b: more than a tail of 2.5 %
    assert (min(means), max(means)) == (0.5, 5.0)
    assert estimate == pytest.approx((3.0, 0.5, 5.0))


def test_equals_scipys_percentile_interval() -> None:
    """Of scipy 1.17.1: bootstrap((sums, sizes), ratio, paired=True, method="percentile", n_resamples=2000, rng=7)."""
    numbers = np.arange(30)
    values, groups = (numbers * 7 % 11) / 4 - 1, numbers * numbers % 13
    (estimate,) = bootstrap(values[:, None], groups, resamples=2_000, seed=7)
    assert estimate == pytest.approx((0.26666666666666666, -0.008333333333333333, 0.5241935483870968), abs=1e-12)


def test_equals_resampling_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zephyr_ray.evaluation.intervals._DRAWN_AT_ONCE", 50)  # many batches of resamples
    rng = np.random.default_rng(3)
    values, groups = rng.normal(size=(40, 2)), rng.integers(0, 9, 40)
    draws = np.random.default_rng(5)
    names, means = np.unique(groups), []
    for _ in range(300):
        drawn = [values[groups == names[each]] for each in draws.integers(0, len(names), len(names))]
        means.append(np.concatenate(drawn).mean(axis=0))
    got = bootstrap(values, groups, resamples=300, seed=5)
    assert np.allclose([(each.low, each.high) for each in got], np.percentile(means, [2.5, 97.5], axis=0).T)
    assert np.allclose([each.value for each in got], values.mean(axis=0))


def test_pairs_of_one_prompt_are_no_news() -> None:
    """The same number ten times in each group is as sure as once, and ten groups of it are surer."""
    values, groups = np.random.default_rng(0).normal(size=(50, 1)), np.arange(50)
    once = bootstrap(values, groups, resamples=1_000, seed=1)
    assert bootstrap(values.repeat(10, axis=0), groups.repeat(10), resamples=1_000, seed=1) == [
        pytest.approx(each) for each in once
    ]
    (alone,) = bootstrap(values.repeat(10, axis=0), np.arange(500), resamples=1_000, seed=1)
    assert alone.high - alone.low < 0.5 * (once[0].high - once[0].low)


def test_differences_are_paired() -> None:
    """What both columns share cancels out in the column of their differences."""
    rng = np.random.default_rng(2)
    shared, gain = rng.normal(size=200) * 10, 1 + rng.normal(size=200) * 0.1
    a, _, difference = bootstrap(
        np.column_stack([shared + gain, shared, gain]), np.arange(200), resamples=1_000, seed=0
    )
    assert difference.high - difference.low < 0.05 < a.high - a.low
    assert difference.low < 1 < difference.high


def test_one_group_has_no_interval() -> None:
    with pytest.raises(ValueError, match="1 group"):
        bootstrap(np.ones((3, 1)), np.zeros(3), resamples=10, seed=0)
