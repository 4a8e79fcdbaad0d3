"""What the pages of reports share: their templates, numbers as a person reads them, and histograms to draw.

A page is one file that loads nothing and needs no script. Every text in it that came from data is escaped.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np

from zephyr_ray.data.io.histogram import Histogram

_ROUND_BINS = 12
_LENGTH_BINS = 40
_WHOLE_BINS = 24


class Bars(NamedTuple):
    """A histogram to draw: `heights[i]` values lie from `edges[i]` to `edges[i + 1]`."""

    edges: list[float]
    heights: list[int]
    low: float = 0.0
    """The smallest of all values on these bins."""
    high: float = 0.0


def render(template: str, **values: Any) -> str:
    """The page of a template in `zephyr_ray/templates`."""
    return _environment().get_template(template).render(**values)


def short(number: float) -> str:
    """A number as a person reads it: thousands with commas, fractions with two digits."""
    return f"{number:,.0f}" if abs(number) >= 1000 or number == int(number) else f"{number:.2f}"


def spaced(name: str) -> str:
    """A name of the recipe or of the data's schema, as words."""
    return name.replace("_", " ")


def round_bars(all_values: Sequence[Mapping[float, int]]) -> list[Bars]:
    """Histograms of values and how often they occur, on common bins around multiples of a round number: each bin holds
    as many of the possible values."""
    values = sorted({value for counts in all_values for value in counts})
    if not values:
        return [Bars([], []) for _ in all_values]
    low, high = values[0], values[-1]
    width = _round_width(high - low, all(value == int(value) for value in values))
    first, last = math.floor(low / width + 0.5), math.floor(high / width + 0.5)
    edges = (np.arange(first, last + 2) - 0.5) * width
    return [_binned(counts, edges, low, high) for counts in all_values]


def length_bars(*histograms: Histogram) -> list[Bars]:
    """Histograms of characters on common bins, whose width grows with the length (texts differ in magnitude)."""
    low, high = _range(histograms)
    if not high:
        return [Bars([], []) for _ in histograms]
    edges = np.geomspace(max(low, 1), max(high, low + 1) + 1, _LENGTH_BINS + 1)
    edges[0] = min(edges[0], low)
    return [_binned(each.bins, edges, low, high) for each in histograms]


def whole_bars(*histograms: Histogram) -> list[Bars]:
    """Histograms of small whole numbers on common bins: one to a number, wider ones where there are many."""
    low, high = _range(histograms)
    if not high:
        return [Bars([], []) for _ in histograms]
    if high - low < _WHOLE_BINS:
        edges = np.arange(low, high + 2, dtype=np.float64)
    else:
        edges = np.unique(np.round(np.geomspace(max(low, 1), high + 1, _WHOLE_BINS + 1)))
        edges[0] = min(edges[0], low)
    return [_binned(each.bins, edges, low, high) for each in histograms]


def _range(histograms: Sequence[Histogram]) -> tuple[int, int]:
    low = min((each.low for each in histograms if each.bins), default=1)
    return low, max((each.high for each in histograms if each.bins), default=0)


def _round_width(span: float, is_whole: bool) -> float:
    """The smallest of 1, 2 and 5 (times a power of ten) that cuts the span into few bins."""
    power = 10.0 ** math.floor(math.log10(span / _ROUND_BINS)) if span > 0 else 1.0
    width = next((step * power for step in (1, 2, 5, 10) if span <= _ROUND_BINS * step * power), power)
    return max(width, 1.0) if is_whole else width


def _binned(counts: Mapping[float, int] | Mapping[int, int], edges: np.ndarray, low: float, high: float) -> Bars:
    heights, _ = np.histogram(list(counts), bins=edges, weights=list(counts.values()))
    return Bars(edges.tolist(), [int(height) for height in heights], low, high)


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("zephyr_ray", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = short
    environment.filters["spaced"] = spaced
    return environment
