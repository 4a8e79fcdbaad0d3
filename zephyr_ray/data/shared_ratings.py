"""Two completions compared by what rated both, in exact arithmetic.

A mean over whatever ratings a completion has would set a harsh judge's rating of one against a lenient judge's of
another. And means of thirds that are equal differ in their last bit as floats.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from statistics import fmean
from typing import Any

from zephyr_ray.data.formats.messages import as_number, is_list_of

_MOST_PARTS = 10_000
"""Denominator of a mean of ratings: raters, times aspects, times the decimals of a rating."""
_ROUNDING = 2.0**-50
"""Relative error of a mean in floats: four units in the last place."""

Rater = tuple[str, str]
"""A judge and its repeat."""
ByRater = Mapping[str, Mapping[Rater, float]]
"""Ratings of one completion: aspect -> rater -> rating."""


@functools.lru_cache(16_384)
def exact(score: float) -> Fraction:
    """The number that a float stands for: a mean of few ratings, or the decimals that it is written with."""
    whole = Fraction(score)
    mean = whole.limit_denominator(_MOST_PARTS)
    return mean if abs(mean - whole) <= abs(whole) * Fraction(_ROUNDING) else Fraction(repr(float(score)))


def opinions_by_rater(completion: Mapping[str, Any], score: float | None, aspects: Iterable[str]) -> ByRater:
    """The ratings of a completion's `opinions` (`schemas.OPINION`) but those of the position check.

    None where its score, as the mean over aspects of the means of their ratings, is not that of these.
    """
    opinions = completion.get("opinions")
    if not opinions or score is None or not is_list_of(opinions, Mapping):
        return {}
    found: dict[str, dict[Rater, float]] = {aspect: {} for aspect in aspects}
    for each in opinions:
        if each.get("aspect") in found and not each.get("is_reversed"):
            rating = as_number(each.get("rating"))
            if rating is not None:
                found[each["aspect"]][str(each.get("judge")), str(each.get("repeat"))] = rating
    found = {aspect: ratings for aspect, ratings in found.items() if ratings}
    mean = fmean(fmean(ratings.values()) for ratings in found.values()) if found else math.nan
    return found if math.isclose(score, mean, rel_tol=1e-9) else {}


def shared_means(a: ByRater, b: ByRater) -> tuple[Fraction, Fraction] | None:
    """Both completions' means over aspects of the means of the raters that rated both; None if there is no such one."""
    found = [
        (_mean(a[aspect][rater] for rater in raters), _mean(b[aspect][rater] for rater in raters))
        for aspect in a
        if aspect in b and (raters := [rater for rater in a[aspect] if rater in b[aspect]])
    ]
    return (_mean(x for x, _ in found), _mean(y for _, y in found)) if found else None


def _mean(values: Iterable[float | Fraction]) -> Fraction:
    numbers = [value if isinstance(value, Fraction) else exact(value) for value in values]
    return sum(numbers, Fraction()) / len(numbers)
