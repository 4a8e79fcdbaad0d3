"""Reads rows of `judgments` -> how far judges, repeats and orders of the answers agree. For reports.

Each counter takes rows one at a time (`add`), can be added to another one (`merge`), and holds sums only: blocks are
counted apart and brought together, in flat memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

from zephyr_ray.judging.rubrics import OVERALL, scale_of
from zephyr_ray.schemas import ASPECTS

Row = Mapping[str, Any]
Ratings = Sequence[float | None]
Kind = Literal["orders", "repeats", "judges"]
Rater = tuple[str, int, bool]
"""Judge, repeat, is_reversed."""


class Agreement(NamedTuple):
    """How far raters agree on one aspect. A figure is null where there is nothing to work it out from."""

    pairs: int
    """Pairs of answers to one prompt, for each two raters that both rated both."""
    same_order: float | None
    """Share of them that the two raters put in the same order; equal ratings are an order too."""
    opposite_order: float | None
    """Share of them that one rater put the one way and the other the other way."""
    ratings: int
    """Answers that two raters rated, for each two raters."""
    mean_difference: float | None
    """Mean absolute difference of the two ratings."""
    alpha: float | None
    """Krippendorff's alpha for interval data: 1 is full agreement, 0 is what chance would give."""


class AgreementCounter:
    """Agreement per aspect between raters of one kind.

    orders: one (judge, repeat) with the answers in both orders (the position check). repeats: the repeats of one judge.
    judges: different judges in the same repeat. Reversed questions count in the first only.
    """

    def __init__(self, kind: Kind):
        self._groups = _GROUPS[kind]
        self._sums: dict[str, _Sums] = defaultdict(_Sums)

    def add(self, row: Row) -> None:
        for aspect in (*ASPECTS, OVERALL):
            raters = _raters(row, aspect)
            for group in self._groups(raters):
                if len(group) > 1:
                    self._sums[aspect].add([raters[rater] for rater in group])

    def merge(self, other: AgreementCounter) -> None:
        for aspect, sums in other._sums.items():
            self._sums[aspect].merge(sums)

    def result(self) -> dict[str, Agreement]:
        """By aspect; aspects on which no two raters can be compared are left out."""
        return {aspect: sums.result() for aspect, sums in self._sums.items()}


class DisagreementCounter:
    """How often an answer's overall score and the mean of its aspects lie far apart on their scales.

    Either may be wrong, so such answers are worth a look: UltraFeedback's misread ratings are found in this way.
    """

    def __init__(self, limit: float = 0.5):
        self._limit = limit
        self._answers, self._gross, self._sum = 0, 0, 0.0

    def add(self, row: Row) -> None:
        for completion in row["completions"]:
            distance = disagreement(completion)
            if distance is not None:
                self._answers += 1
                self._gross += distance > self._limit
                self._sum += distance

    def merge(self, other: DisagreementCounter) -> None:
        self._answers += other._answers
        self._gross += other._gross
        self._sum += other._sum

    def result(self) -> dict[str, float | int | None]:
        """{answers that have both, of these gross ones, mean distance}."""
        return {"answers": self._answers, "gross": self._gross, "mean_distance": _ratio(self._sum, self._answers)}


def disagreement(completion: Row) -> float | None:
    """Distance of the overall score and the mean of the aspects, each as a share of its scale: 0 to 1.

    Overall 10 is 1.0 and aspects of 1 are 0.0, so a best overall score on worst aspects gives 1. Null without either.
    """
    annotations = completion["annotations"] or {}
    ratings = [each["rating"] for each in annotations.values() if each and each["rating"] is not None]
    if completion["overall_score"] is None or not ratings:
        return None
    mean = sum(ratings) / len(ratings)
    return abs(_share(completion["overall_score"], OVERALL) - _share(mean, ASPECTS[0]))


class _Sums:
    """What `Agreement` is worked out from."""

    def __init__(self) -> None:
        self.pairs, self.same, self.opposite = 0, 0, 0
        self.ratings, self.difference = 0, 0.0
        self.coincidences: Counter[tuple[float, float]] = Counter()

    def add(self, raters: Sequence[Ratings]) -> None:
        """Takes the ratings of one prompt's answers: a list for each rater, null where it gave none."""
        for first, second in combinations(raters, 2):
            both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
            self.ratings += len(both)
            self.difference += sum(abs(a - b) for a, b in both)
            for one, other in combinations(both, 2):
                orders = _sign(one[0] - other[0]), _sign(one[1] - other[1])
                self.pairs += 1
                self.same += orders[0] == orders[1]
                self.opposite += orders[0] * orders[1] < 0
        for answer in zip(*raters, strict=True):
            self._count([rating for rating in answer if rating is not None])

    def _count(self, ratings: Sequence[float]) -> None:
        """Every ordered pair of an answer's ratings, weighted so that each rating counts once."""
        for i, first in enumerate(ratings):
            for j, second in enumerate(ratings):
                if i != j:
                    self.coincidences[first, second] += 1 / (len(ratings) - 1)  # type: ignore[assignment]

    def merge(self, other: _Sums) -> None:
        self.pairs += other.pairs
        self.same += other.same
        self.opposite += other.opposite
        self.ratings += other.ratings
        self.difference += other.difference
        self.coincidences.update(other.coincidences)

    def result(self) -> Agreement:
        return Agreement(
            pairs=self.pairs,
            same_order=_ratio(self.same, self.pairs),
            opposite_order=_ratio(self.opposite, self.pairs),
            ratings=self.ratings,
            mean_difference=_ratio(self.difference, self.ratings),
            alpha=interval_alpha(self.coincidences),
        )


def interval_alpha(coincidences: Mapping[tuple[float, float], float]) -> float | None:
    """Krippendorff's alpha with squared differences, from the matrix of coincidences (Krippendorff, "Computing
    Krippendorff's Alpha-Reliability", 2011, section D). Null where all ratings are equal: nothing could disagree.

    Args:
        coincidences: How often the two values stand together in a unit, each unit of m values weighted 1 / (m - 1).
    """
    totals: Counter[float] = Counter()
    for (value, _), weight in coincidences.items():
        totals[value] += weight  # type: ignore[assignment]
    n = sum(totals.values())
    observed = sum(weight * (a - b) ** 2 for (a, b), weight in coincidences.items())
    expected = sum(totals[a] * totals[b] * (a - b) ** 2 for a in totals for b in totals)
    return 1 - (n - 1) * observed / expected if expected else None


def _raters(row: Row, aspect: str) -> dict[Rater, Ratings]:
    """The ratings that each rater gave the row's answers."""
    raters: dict[Rater, list[float | None]] = {}
    for number, completion in enumerate(row["completions"]):
        for each in completion["opinions"] or ():
            if each["aspect"] == aspect:
                rater = (each["judge"], each["repeat"], each["is_reversed"])
                raters.setdefault(rater, [None] * len(row["completions"]))[number] = each["rating"]
    return dict(raters)


def _orders(raters: Iterable[Rater]) -> list[list[Rater]]:
    groups = _grouped(raters, lambda rater: rater[:2])
    return [group for group in groups if len(group) == 2]


def _repeats(raters: Iterable[Rater]) -> list[list[Rater]]:
    return _grouped((rater for rater in raters if not rater[2]), lambda rater: rater[0])


def _judges(raters: Iterable[Rater]) -> list[list[Rater]]:
    return _grouped((rater for rater in raters if not rater[2]), lambda rater: rater[1])


def _grouped(raters: Iterable[Rater], key: Callable[[Rater], Any]) -> list[list[Rater]]:
    groups: dict[Any, list[Rater]] = {}
    for rater in raters:
        groups.setdefault(key(rater), []).append(rater)
    return list(groups.values())


_GROUPS: dict[Kind, Callable[[Iterable[Rater]], list[list[Rater]]]] = {
    "orders": _orders,
    "repeats": _repeats,
    "judges": _judges,
}


def _share(rating: float, aspect: str) -> float:
    low, high = scale_of(aspect)
    return (rating - low) / (high - low)


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
