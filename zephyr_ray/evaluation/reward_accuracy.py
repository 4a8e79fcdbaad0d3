"""How often a reward model prefers the chosen answer of held-out pairs, and whether its confidence is right.

By Bradley and Terry the chosen answer wins with the probability sigmoid(reward_chosen - reward_rejected). A model's
confidence in a pair is that of the answer that it prefers, from 0.5 to 1. It is calibrated where of the pairs in which
it has a confidence of 0.8 it is right in 80 % (arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from zephyr_ray.evaluation.implicit_reward import wins
from zephyr_ray.evaluation.intervals import LEVEL, RESAMPLES, Estimate, bootstrap

NAMES = {
    "reward_accuracy": "reward accuracy",
    "reward_margin": "reward margin",
    "log_loss": "log loss, nats",
    "brier_score": "Brier score",
    "overconfidence": "confidence - accuracy",
}
BINS = 10


@dataclass(frozen=True)
class Bin:
    """The pairs in which the model is about as confident: over `low`, at most `high` (0.5 belongs to the first)."""

    low: float
    high: float
    pairs: int
    confidence: float | None
    """Mean; None without a pair."""
    accuracy: float | None
    """Share of the pairs in which the chosen answer is preferred; a tie counts as half."""


@dataclass(frozen=True)
class Summary:
    """The measures over all pairs, by the keys of `NAMES`, and the calibration curve."""

    pairs: int
    prompts: int
    measures: Mapping[str, Estimate]
    calibration: tuple[Bin, ...]
    calibration_error: float
    """The expected calibration error: the mean distance of confidence and accuracy over the bins, by pairs."""


def summarise(margins: np.ndarray, prompts: np.ndarray, seed: int) -> Summary:
    """Means over pairs, with 95 % intervals by a bootstrap over prompts.

    Args:
        margins: [pairs] float64, the reward of the chosen answer minus that of the rejected one; finite.
        prompts: [pairs], the id of each pair's prompt.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: There are fewer than two prompts.
    """
    right, confidence = wins(margins), confidences(margins)
    log_loss = np.logaddexp(0, -margins)
    brier = (1 - _sigmoid(margins)) ** 2
    columns = np.column_stack([right, margins, log_loss, brier, confidence - right])
    estimates = bootstrap(columns, prompts, resamples=RESAMPLES, seed=seed)
    bins = calibration(margins)
    distance = sum(each.pairs * abs((each.confidence or 0) - (each.accuracy or 0)) for each in bins) / len(margins)
    return Summary(
        len(margins), len(np.unique(prompts)), dict(zip(NAMES, estimates, strict=True)), tuple(bins), float(distance)
    )


def confidences(margins: np.ndarray) -> np.ndarray:
    """The probability of the preferred answer, [pairs], 0.5 to 1."""
    return _sigmoid(np.abs(margins))


def calibration(margins: np.ndarray) -> list[Bin]:
    """The calibration curve in `BINS` bins of equal width."""
    confidence, right = confidences(margins), wins(margins)
    edges = np.linspace(0.5, 1.0, BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    found = []
    for number in range(BINS):
        own = place == number
        count = int(own.sum())
        means = (float(confidence[own].mean()), float(right[own].mean())) if count else (None, None)
        found.append(Bin(round(float(edges[number]), 4), round(float(edges[number + 1]), 4), count, *means))
    return found


def table_lines(summary: Summary) -> list[str]:
    """The measures and the curve as plain text."""
    lines = [_heading(summary), f"{'':<24} {'value':>9}   {_level()} interval"]
    lines += [f"{name:<24} {value:>9}   {interval}" for name, value, interval in _rows(summary)]
    lines += ["", f"{'confidence':<14} {'pairs':>7} {'mean':>9} {'accuracy':>9}"]
    for each in summary.calibration:
        if each.pairs:
            lines.append(f"{_range(each):<14} {each.pairs:>7,} {each.confidence:>9.1%} {each.accuracy:>9.1%}")
    return [*lines, f"expected calibration error: {summary.calibration_error:.1%}"]


def markdown(summary: Summary) -> str:
    """The same as Markdown."""
    lines = [_heading(summary), "", f"| | value | {_level()} interval |", "| --- | ---: | --- |"]
    lines += [f"| {name} | {value} | {interval} |" for name, value, interval in _rows(summary)]
    lines += ["", "| confidence | pairs | mean confidence | accuracy |", "| --- | ---: | ---: | ---: |"]
    for each in summary.calibration:
        means = (f"{each.confidence:.1%}", f"{each.accuracy:.1%}") if each.pairs else ("", "")
        lines.append(f"| {_range(each)} | {each.pairs:,} | {means[0]} | {means[1]} |")
    notes = (
        f"Expected calibration error: {summary.calibration_error:.1%}. A tie counts as half. Intervals: percentile "
        f"bootstrap over prompts, {RESAMPLES:,} resamples."
    )
    return "\n".join([*lines, "", notes, ""])


def _rows(summary: Summary) -> list[tuple[str, str, str]]:
    forms = {"reward_accuracy": ".1%", "reward_margin": "+.4f", "overconfidence": "+.1%"}
    found = []
    for name, estimate in summary.measures.items():
        value, low, high = (f"{number:{forms.get(name, '.4f')}}" for number in estimate)
        found.append((NAMES[name], value, f"{low} to {high}"))
    return found


def _heading(summary: Summary) -> str:
    return f"held-out preferences: {summary.pairs:,} pairs over {summary.prompts:,} prompts"


def _range(each: Bin) -> str:
    return f"{each.low:.2f} to {each.high:.2f}"


def _level() -> str:
    return f"{LEVEL:.0%}".replace("%", " %")


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), where exp does not overflow."""
    return np.exp(-np.logaddexp(0, -values))
