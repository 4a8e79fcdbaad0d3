"""Lines, polygons and bars as numbers in a box, for the page's templates to draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zephyr_ray.data.report_page import short
from zephyr_ray.reporting.evaluations import Estimate

WIDTH, HEIGHT = 600.0, 170.0
"""Of a chart of lines."""
RADIUS = 100.0
"""Of a radar chart."""
STYLES = 8
"""Ways to draw a line, each with a colour and a pattern of dashes of its own (`s0` to `s7` in the page's style)."""
_MOST_ROWS = 25  # of a chart's table

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    style: str
    points: str
    """For SVG's polyline."""
    values: list[tuple[float, float]]


@dataclass(frozen=True)
class LineChart:
    """Lines over a common axis."""

    title: str
    axis: str
    """What the vertical axis is."""
    across: str
    """What the horizontal axis is."""
    lines: list[Line]
    left: float
    right: float
    low: float
    high: float
    zero: float | None
    """Height of the line at 0 in the box, where 0 lies within."""

    @property
    def table(self) -> list[tuple[str, list[str]]]:
        """Some of the steps, evenly, and every line's value there."""
        steps = sorted({x for line in self.lines for x, _ in line.values})
        every = math.ceil(len(steps) / _MOST_ROWS) or 1
        shown = [*steps[:-1:every], *steps[-1:]]
        by_line = [dict(line.values) for line in self.lines]
        return [(short(x), [f"{found[x]:.4g}" if x in found else "" for found in by_line]) for x in shown]


@dataclass(frozen=True)
class Radar:
    """Means by category, a polygon to each model."""

    spokes: list[tuple[str, float, float, str]]
    """A category's name, the place of its label, and how the label is anchored there."""
    rings: list[tuple[float, str]]
    polygons: list[Line]
    low: float
    high: float


def line_chart(title: str, axis: str, across: str, series: Sequence[tuple[str, Points]]) -> LineChart | None:
    """A chart of several lines; None without any point."""
    drawn = [(name, [*points]) for name, points in series if points]
    if not drawn:
        return None
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    if high == low:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2

    def at(x: float, y: float) -> str:
        across_box = WIDTH * (x - left) / (right - left) if right > left else WIDTH / 2
        return f"{across_box:.1f},{HEIGHT * (1 - (y - low) / (high - low)):.1f}"

    lines = []
    for number, (name, points) in enumerate(drawn):
        placed = [at(x, y) for x, y in points]
        alone = [f"0,{placed[0].partition(',')[2]}", f"{WIDTH:.0f},{placed[0].partition(',')[2]}"]
        lines.append(Line(name, f"s{number % STYLES}", " ".join(placed if len(placed) > 1 else alone), points))
    zero = HEIGHT * (1 + low / (high - low)) if low < 0 < high else None
    return LineChart(title, axis, across, lines, left, right, low, high, zero)


def radar(by_model: Mapping[str, Mapping[str, float]], low: float = 0.0, high: float = 10.0) -> Radar | None:
    """A radar chart of means by category; None with fewer than three categories.

    Args:
        by_model: {model: {category: mean}}; a category that a model lacks lies at the centre.
        low: The value at the centre.
        high: The value at the rim.
    """
    names = list(dict.fromkeys(name for means in by_model.values() for name in means))
    if len(names) < 3:
        return None
    angles = [2 * math.pi * number / len(names) - math.pi / 2 for number in range(len(names))]

    def place(angle: float, value: float) -> tuple[float, float]:
        length = RADIUS * min(1.0, max(0.0, (value - low) / (high - low)))
        return length * math.cos(angle), length * math.sin(angle)

    spokes = []
    for name, angle in zip(names, angles, strict=True):
        x, y = 1.12 * RADIUS * math.cos(angle), 1.12 * RADIUS * math.sin(angle)
        spokes.append((name, x, y, "middle" if abs(x) < 10 else "start" if x > 0 else "end"))
    polygons = []
    for number, (model, means) in enumerate(by_model.items()):
        placed = [place(angle, means.get(name, low)) for name, angle in zip(names, angles, strict=True)]
        values = [(float(at), means[name]) for at, name in enumerate(names) if name in means]
        polygons.append(Line(model, f"s{number % STYLES}", " ".join(f"{x:.1f},{y:.1f}" for x, y in placed), values))
    rings = [(RADIUS * part / 4, short(low + (high - low) * part / 4)) for part in range(1, 5)]
    return Radar(spokes, rings, polygons, low, high)


@dataclass(frozen=True)
class Bar:
    """An estimate and its interval, as shares of a forest plot's width in percent."""

    estimate: Estimate
    left: float
    width: float
    dot: float


@dataclass(frozen=True)
class Forest:
    """Intervals on a common scale."""

    what: str
    bars: list[Bar]
    ends: tuple[str, str]
    neutral: float | None
    """Where no difference lies, in percent of the width; None where it lies outside, or nothing is compared."""


def forests(estimates: Sequence[Estimate]) -> list[Forest]:
    """Estimates by their unit: shares on a scale from 0 to 1, the others from the lowest bound to the highest."""
    groups: dict[str, list[Estimate]] = {}
    for each in estimates:
        kind = each.what if not each.is_share else "differences of shares" if each.neutral == 0 else "shares"
        groups.setdefault(kind, []).append(each)
    return [_forest(kind, found) for kind, found in groups.items()]


def _forest(what: str, estimates: list[Estimate]) -> Forest:
    neutrals = {each.neutral for each in estimates if each.neutral is not None}
    bounds = [number for each in estimates for number in (each.low, each.high)] + [*neutrals]
    low, high = (0.0, 1.0) if what == "shares" else (min(bounds), max(bounds))
    span = (high - low) or 1.0

    def at(number: float) -> float:
        return round(100 * (number - low) / span, 2)

    bars = [Bar(each, at(each.low), max(0.5, at(each.high) - at(each.low)), at(each.value)) for each in estimates]
    neutral = at(neutrals.pop()) if len(neutrals) == 1 else None
    return Forest(what, bars, (estimates[0].show(low), estimates[0].show(high)), neutral)
