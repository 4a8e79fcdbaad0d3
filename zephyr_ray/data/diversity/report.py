"""The page of the stage `diversity`: report.html."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from zephyr_ray.data import report_page
from zephyr_ray.data.diversity.distinct import Distinct
from zephyr_ray.data.diversity.generations import Curve
from zephyr_ray.data.diversity.measures import NEAR, Measures
from zephyr_ray.data.report_page import short, spaced

WIDTH, HEIGHT = 600.0, 190.0
"""Of the plot of a curve."""


@dataclass(frozen=True)
class DistinctRow:
    """Distinct-n at one number of words: a cell for each n and each of users, assistant and seeds."""

    words: int
    shares: list[tuple[str, tuple[float | None, ...]]]
    """By whose words they are."""


@dataclass(frozen=True)
class DrawnCurve:
    method: str
    made: int
    in_order: str
    """The points of a line in a box of `WIDTH` by `HEIGHT`."""
    shuffled: str
    last: tuple[float, float]
    """The last means in order and shuffled."""


@dataclass(frozen=True)
class Picture:
    title: str
    subtitle: str
    measures: Measures
    near: float
    distinct: list[DistinctRow]
    low: float
    """The cosine at the bottom of the curves; 1 is at the top."""
    curves: list[DrawnCurve]

    @property
    def is_sample(self) -> bool:
        return self.measures.measured < self.measures.dialogues


def render(measures: Measures) -> str:
    """The page."""
    return report_page.render("diversity_report.html.jinja", p=picture(measures))


def picture(measures: Measures) -> Picture:
    """The numbers and lines of the page."""
    curves = {} if measures.embedded is None else measures.embedded.generations
    values = [value for curve in curves.values() for value in (*curve.in_order, *curve.shuffled)]
    low = min(math.floor(min(values, default=0.0) * 10) / 10, 0.9)
    made = ", ".join(f"{short(count)} by {spaced(method)}" for method, count in measures.methods.items())
    return Picture(
        title="Diversity of generated dialogues",
        subtitle=f"{short(measures.dialogues)} dialogues: {made}",
        measures=measures,
        near=NEAR,
        distinct=distinct_rows(measures.distinct),
        low=low,
        curves=[_drawn(method, curve, low) for method, curve in curves.items()],
    )


def distinct_rows(distinct: dict[str, list[Distinct]]) -> list[DistinctRow]:
    """A row for each number of words, which is where texts compare."""
    sizes = sorted({each.words for found in distinct.values() for each in found})
    return [
        DistinctRow(
            size,
            [(who, each.shares) for who, found in distinct.items() for each in found if each.words == size],
        )
        for size in sizes
    ]


def _drawn(method: str, curve: Curve, low: float) -> DrawnCurve:
    return DrawnCurve(
        method,
        curve.made[-1],
        _line(curve.made, curve.in_order, low),
        _line(curve.made, curve.shuffled, low),
        (curve.in_order[-1], curve.shuffled[-1]),
    )


def _line(ends: Sequence[int], means: Sequence[float], low: float) -> str:
    """A mean is drawn in the middle of its range; a single one across all of it."""
    middles = [(start + end) / 2 for start, end in pairwise([0, *ends])]
    places = list(zip(middles, means, strict=True)) if len(means) > 1 else [(0.0, means[0]), (float(ends[0]), means[0])]
    scaled = ((WIDTH * at / ends[-1], HEIGHT * (1 - (mean - low) / (1 - low))) for at, mean in places)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in scaled)
