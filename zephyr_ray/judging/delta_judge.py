"""Delta learning (arXiv 2507.06187): the stronger model's answer is chosen, the weaker one's rejected, unread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zephyr_ray.judging.aggregation import scored_row


def judge_by_model(row: Mapping[str, Any], chosen: str, rejected: str) -> dict[str, Any]:
    """A row of `judgments`: 1 for each completion of the model `chosen`, 0 for `rejected`'s, null for all others."""
    scores = {chosen: 1.0, rejected: 0.0}
    return scored_row(row, [scores.get(each["model"]) for each in row["completions"]])
