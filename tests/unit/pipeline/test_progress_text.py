"""A stage's progress in words."""

from __future__ import annotations

from typing import Any

import pytest

from zephyr_ray.pipeline import progress_text
from zephyr_ray.pipeline.events import StageProgress


def progress(rows: int, total: int | None = None, **fields: Any) -> StageProgress:
    known: dict[str, Any] = {"unit": "steps", "rate": None, "seconds_left": None, "metrics": {}, **fields}
    return StageProgress(stage="sft", rows=rows, total=total, **known)


@pytest.mark.parametrize(
    ("reported", "says"),
    [
        (progress(0), "starting"),
        (progress(3, 9, unit="rows"), "3/9 rows"),
        (
            progress(120, 1220, rate=10.0, seconds_left=110.0, metrics={"loss": 0.69314}),
            "120/1,220 steps  10.0/s  1:50 left  loss 0.6931",
        ),
        (progress(1500, rate=100.0, unit="rows"), "1,500 rows  100.0/s"),  # without a total nothing is left
        (progress(3, 9, rate=0.02), "3/9 steps  1.2/min"),
        (
            progress(0, 64, unit="rows", metrics={"replies": 1280, "tokens": 51200, "usd": 0.256}),
            "0/64 rows  replies 1,280  tokens 51,200  US$ 0.256",  # the first row is done when all its replies are
        ),
        (
            progress(1, 9, metrics={"loss": float("nan"), "tokens_per_second": 12345.6}),
            "1/9 steps  loss nan  tokens/s 12,346",
        ),
    ],
)
def test_parts(reported: StageProgress, says: str) -> None:
    assert "  ".join(progress_text.parts(reported)) == says


def test_clock() -> None:
    assert [progress_text.clock(seconds) for seconds in (0.4, 59.6, 600, 3599.7, 36000)] == [
        *("0:00", "1:00", "10:00", "1:00:00", "10:00:00")
    ]


def test_what_says_how_fast_it_went_is_nothing_that_came_of_it() -> None:
    shown = progress(9, 9, metrics={"loss": 0.5, "lr": 1e-4, "tokens_per_second": 7.0})
    assert progress_text.metrics(shown, ended=True) == ["loss 0.5"]
