"""A user function as judge, which gives overall scores only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.judging.aggregation import scored_row
from zephyr_ray.pipeline import plugin

Judge = Callable[[list[dict[str, str]], str], float | None]
"""(messages of the prompt, completion) -> overall score or None (cannot tell), on any scale: only order counts."""


def load_judge(function: str) -> Judge:
    """The function that a recipe names as `module:function`. Raises as `plugin.load`."""
    return plugin.load("judging.judge.function", function)


def program_fingerprints(function: str) -> dict[str, str]:
    """The fingerprints of the function's source and of what it imports. Raises as `plugin.fingerprints`."""
    return plugin.fingerprints("function", "judging.judge.function", function)


def judge_by_program(row: Mapping[str, Any], judge: Judge, name: str = "judging.judge.function") -> dict[str, Any]:
    """A row of `judgments`. Exceptions of the function propagate: they are errors, not scores.

    Raises:
        UserError: The function returned something other than a finite number or None.
    """
    return scored_row(
        row,
        [
            check_score(judge([dict(message) for message in row["messages"]], each["content"]), name)
            for each in row["completions"]
        ],
    )


def check_score(score: Any, name: str) -> float | None:
    """The score that the function of that name returned.

    Raises:
        UserError: It is neither a finite number nor None.
    """
    if score is None:
        return None
    try:
        number = math.nan if isinstance(score, str | bytes) else float(score)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{name} returned {repr(score)[:80]}; return a finite number, or None for no score")
    return number
