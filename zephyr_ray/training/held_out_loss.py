"""What the loss on rows that are held out says of a training: its curve, and an alarm where it has risen."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

_Z95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


class Rise(NamedTuple):
    """How much higher a loss is than another one, in nats per token, and the half width of its 95 % interval."""

    value: float
    noise: float


class RowLosses(NamedTuple):
    """Of each row the sum of its tokens' losses in nats (float64 [rows]), and how many they are (int64 [rows])."""

    losses: np.ndarray
    tokens: np.ndarray

    @property
    def mean(self) -> float:
        """Nats per token."""
        return float(self.losses.sum() / self.tokens.sum())


def rise(before: np.ndarray, after: RowLosses) -> Rise:
    """How much the loss rose between two evaluations of the same rows, paired by row.

    The mean over tokens is a ratio of sums over rows; its standard error is that of the ratio estimator (Cochran,
    Sampling Techniques, 1977, section 6.4). A single row has no noise that could be told: it is infinite.
    """
    rows, total = len(before), after.tokens.sum()
    differences = after.losses - before
    value = differences.sum() / total
    if rows < 2:
        return Rise(float(value), math.inf)
    spread = ((differences - value * after.tokens) ** 2).sum() * rows / (rows - 1)
    return Rise(float(value), _Z95 * math.sqrt(spread) / float(total))


def lines(stage: str, summary: dict[str, Any]) -> list[str]:
    """What a person reads of a summary."""
    curve = summary["curve"]
    first, last, lowest = curve[0], curve[-1], min(curve, key=lambda point: point["loss"])
    start = f"at step {first['step']:,}" if first["step"] else "before training"
    said = (
        f"loss on {summary['rows']:,} held-out rows ({summary['tokens']:,} tokens): {first['loss']:.4f} {start}, "
        f"{lowest['loss']:.4f} at its lowest (step {lowest['step']:,}), {last['loss']:.4f} after "
        f"{last['step']:,} steps"
    )
    return [said, *alarms(stage, summary)]


def alarms(stage: str, summary: dict[str, Any]) -> list[str]:
    """A line where the loss ends higher than its minimum by more than its noise, else none."""
    curve, risen = summary["curve"], summary["rise"]
    if risen is None or risen["value"] <= risen["noise"]:
        return []
    lowest = min(curve, key=lambda point: point["loss"])
    when = f"step {lowest['step']:,}" if lowest["step"] else "before training"
    way_out = f"lower {stage}.learning_rate"
    if lowest["step"]:
        way_out = f"fewer {stage}.epochs (or {stage}.max_steps), or a lower {stage}.learning_rate"
    return [
        f"ALARM: the held-out loss rose from {lowest['loss']:.4f} ({when}) to {curve[-1]['loss']:.4f} at the end, by "
        f"{risen['value']:.4f} +- {risen['noise']:.4f}: the model fits its rows and no others any more; try {way_out}"
    ]
