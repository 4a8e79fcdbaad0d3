"""The win rate at equal lengths: by hand, against scipy's maximum, and where it cannot be told."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from zephyr_ray.evaluation.comparison import Comparison
from zephyr_ray.evaluation.length_control import C, length_controlled


def comparisons(*rows: tuple[float, float], **others: object) -> list[Comparison]:
    """Rows of an outcome and A's length where B's is 100, each a prompt."""
    return [Comparison(place, outcome, characters=(length, 100)) for place, (outcome, length) in enumerate(rows)]


def drawn(n: int, theta: float, phi: float, seed: int = 0) -> list[Comparison]:
    rng = np.random.default_rng(seed)
    differences = rng.normal(30, 100, n)
    chances = 1 / (1 + np.exp(-(theta + phi * np.tanh(differences / differences.std(ddof=1)))))
    return comparisons(*zip((rng.random(n) < chances).astype(float), 100 + differences, strict=True))


def test_finds_what_was_put_in() -> None:
    """Equally good models, of which A writes longer and the judge likes it."""
    found = length_controlled(drawn(20_000, theta=0.0, phi=2.0))
    assert found.win_rate == pytest.approx(0.5, abs=0.01)
    assert found.length_effect == pytest.approx(2.0, abs=0.1)
    assert found.interval is not None
    assert found.interval[0] < 0.5 < found.interval[1]


def test_is_the_maximum_of_the_penalized_likelihood() -> None:
    rows = [(1.0, 150.0), (0.0, 130.0), (0.5, 100.0), (0.8, 90.0), (0.0, 60.0), (1.0, 120.0)]
    outcomes, lengths = np.array(rows).T
    features = np.tanh((lengths - 100) / (lengths - 100).std(ddof=1))

    def loss(parameters: np.ndarray) -> float:
        logits = parameters[0] + parameters[1] * features
        return float((np.logaddexp(0, logits) - outcomes * logits).sum() + parameters[1] ** 2 / (2 * C))

    theta, phi = minimize(loss, np.zeros(2), tol=1e-12).x
    found = length_controlled(comparisons(*rows))
    assert found.win_rate == pytest.approx(1 / (1 + np.exp(-theta)), abs=1e-5)
    assert found.length_effect == pytest.approx(phi, abs=1e-4)
    assert (found.n, found.unit, found.reason) == (6, "characters", None)


def test_the_interval_is_that_of_other_samples() -> None:
    """Of 120 samples of the same kind, 95 % have the truth in their interval, and rows repeated count once."""
    truth = 1 / (1 + np.exp(-0.4))
    intervals = [length_controlled(drawn(150, 0.4, 1.0, seed)).interval for seed in range(120)]
    covered = np.mean([interval is not None and interval[0] < truth < interval[1] for interval in intervals])
    assert 0.89 <= covered <= 0.99
    once = drawn(150, 0.4, 1.0)
    assert length_controlled(once * 4).interval == pytest.approx(length_controlled(once).interval, abs=1e-3)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([Comparison(0, 1.0)], "no comparison has the lengths"),
        (comparisons((1.0, 3)), "there is one prompt"),
        (comparisons((0.5, 3), (0.5, 4)), "all outcomes are the same"),
        (comparisons((1.0, 30), (0.0, 30)), "the difference in length is the same everywhere"),
        (comparisons((1.0, 30), (1.0, 20), (0.0, 20), (0.0, 10)), "tells all wins from all losses"),
        (comparisons((0.0, 30), (1.0, 20)), "tells all wins from all losses"),
    ],
)
def test_what_cannot_be_told_is_null_with_the_reason(rows: list[Comparison], says: str) -> None:
    found = length_controlled(rows)
    assert (found.win_rate, found.interval, found.length_effect) == (None, None, None)
    assert says in str(found.reason)


def test_a_tie_overlaps_with_everything() -> None:
    assert length_controlled(comparisons((1.0, 130), (0.0, 70), (0.5, 140))).reason is None


def test_the_unit_that_more_comparisons_have() -> None:
    rows = [Comparison(place, place % 3 / 2, tokens=(place, 5), characters=(9 * place, 5)) for place in range(6)]
    assert length_controlled(rows).unit == "tokens"
    more = [*rows, Comparison(6, 0.0, characters=(70, 5))]
    assert length_controlled(more)[3:5] == (7, "characters")
