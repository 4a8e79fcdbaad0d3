"""Agreement between judges, repeats and presentation orders, counted from rows of `judgments` for reports.

A counter takes one row at a time (`add`), merges with another (`merge`), and holds only sums, so that blocks can be
counted separately in constant memory.
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
KINDS: tuple[Kind, ...] = ("orders", "repeats", "judges")
Rater = tuple[str, int, bool]
"""Judge, repeat, is_reversed."""


class Agreement(NamedTuple):
    """Agreement of raters on one aspect. A figure is null if there are no data for it."""

    pairs: int
    """Pairs of completions of one prompt, counted for each two raters that both rated both."""
    same_order: float | None
    """Share of these pairs that the two raters order in the same way; a tie counts as an order."""
    opposite_order: float | None
    """Share of these pairs that the two raters order in opposite ways."""
    ratings: int
    """Completions that both of two raters rated, counted for each two raters."""
    mean_difference: float | None
    """Mean absolute difference of the two ratings."""
    alpha: float | None
    """Krippendorff's alpha for interval data: 1 is full agreement, 0 is what chance would give."""


class AgreementCounter:
    """Agreement per aspect between raters of one kind.

    orders: one (judge, repeat) with the completions in both orders (the position check). repeats: the repeats of one
    judge. judges: different judges in the same repeat. Only the first kind counts reversed questions.
    """

    def __init__(self, kind: Kind):
        self._groups = _GROUPS[kind]
        self._sums: dict[str, _Sums] = defaultdict(_Sums)

    def add(self, row: Row) -> None:
        for aspect in (*ASPECTS, OVERALL):
            raters = _ratings_by_rater(row, aspect)
            for group in self._groups(raters):
                if len(group) > 1:
                    self._sums[aspect].add([raters[rater] for rater in group])

    def merge(self, other: AgreementCounter) -> None:
        for aspect, sums in other._sums.items():
            self._sums[aspect].merge(sums)

    def result(self) -> dict[str, Agreement]:
        """Agreement by aspect; aspects that no two raters rated are left out."""
        return {aspect: sums.result() for aspect, sums in self._sums.items()}


class DisagreementCounter:
    """Counts completions whose overall score lies far from the mean of their aspects, relative to the scales.

    One of the two is probably wrong, so such completions are worth a look: this finds UltraFeedback's misread ratings.
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
        """`answers` (completions with both), `gross` (those above the limit) and `mean_distance`."""
        return {"answers": self._answers, "gross": self._gross, "mean_distance": _ratio(self._sum, self._answers)}


def disagreement(completion: Row) -> float | None:
    """Distance between the overall score and the mean of the aspects, each as a share of its scale: 0 to 1.

    An overall score of 10 is 1.0 and an aspect rating of 1 is 0.0, so the best score on the worst aspects gives 1. None
    if either is missing.
    """
    annotations = completion["annotations"] or {}
    ratings = [each["rating"] for each in annotations.values() if each and each["rating"] is not None]
    if completion["overall_score"] is None or not ratings:
        return None
    mean = sum(ratings) / len(ratings)
    return abs(_share_of_scale(completion["overall_score"], OVERALL) - _share_of_scale(mean, ASPECTS[0]))


class _Sums:
    """The sums that `Agreement` is computed from."""

    def __init__(self) -> None:
        self.pairs, self.same, self.opposite = 0, 0, 0
        self.ratings, self.difference = 0, 0.0
        self.coincidences: Counter[tuple[float, float]] = Counter()

    def add(self, raters: Sequence[Ratings]) -> None:
        """Adds the ratings of one prompt's completions: a list for each rater, with None for a missing rating."""
        for first, second in combinations(raters, 2):
            both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
            self.ratings += len(both)
            self.difference += sum(abs(a - b) for a, b in both)
            for one, other in combinations(both, 2):
                orders = _sign(one[0] - other[0]), _sign(one[1] - other[1])
                self.pairs += 1
                self.same += orders[0] == orders[1]
                self.opposite += orders[0] * orders[1] < 0
        for completion in zip(*raters, strict=True):
            self._count_coincidences([rating for rating in completion if rating is not None])

    def _count_coincidences(self, ratings: Sequence[float]) -> None:
        """Counts every ordered pair of a completion's ratings, weighted so that each rating counts once."""
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
    Krippendorff's Alpha-Reliability", 2011, section D). None if all ratings are equal.

    Args:
        coincidences: How often two values occur together in a unit, each unit of m values weighted 1 / (m - 1).
    """
    totals: Counter[float] = Counter()
    for (value, _), weight in coincidences.items():
        totals[value] += weight  # type: ignore[assignment]
    n = sum(totals.values())
    observed = sum(weight * (a - b) ** 2 for (a, b), weight in coincidences.items())
    expected = sum(totals[a] * totals[b] * (a - b) ** 2 for a in totals for b in totals)
    return 1 - (n - 1) * observed / expected if expected else None


def _ratings_by_rater(row: Row, aspect: str) -> dict[Rater, Ratings]:
    """Each rater's ratings of the row's completions."""
    raters: dict[Rater, list[float | None]] = {}
    for number, completion in enumerate(row["completions"]):
        for each in completion["opinions"] or ():
            if each["aspect"] == aspect:
                rater = (each["judge"], each["repeat"], each["is_reversed"])
                raters.setdefault(rater, [None] * len(row["completions"]))[number] = each["rating"]
    return dict(raters)


def _group_by_judge_and_repeat(raters: Iterable[Rater]) -> list[list[Rater]]:
    groups = _grouped(raters, lambda rater: rater[:2])
    return [group for group in groups if len(group) == 2]


def _group_by_judge(raters: Iterable[Rater]) -> list[list[Rater]]:
    return _grouped((rater for rater in raters if not rater[2]), lambda rater: rater[0])


def _group_by_repeat(raters: Iterable[Rater]) -> list[list[Rater]]:
    return _grouped((rater for rater in raters if not rater[2]), lambda rater: rater[1])


def _grouped(raters: Iterable[Rater], key: Callable[[Rater], Any]) -> list[list[Rater]]:
    groups: dict[Any, list[Rater]] = {}
    for rater in raters:
        groups.setdefault(key(rater), []).append(rater)
    return list(groups.values())


_GROUPS: dict[Kind, Callable[[Iterable[Rater]], list[list[Rater]]]] = {
    "orders": _group_by_judge_and_repeat,
    "repeats": _group_by_judge,
    "judges": _group_by_repeat,
}


def _share_of_scale(rating: float, aspect: str) -> float:
    low, high = scale_of(aspect)
    return (rating - low) / (high - low)


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def agreement_numbers(agreement: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The figures of a manifest as a report shows them: {what: {aspect: number}}, without what there is none of."""
    named = {
        "same_order": "share of pairs that two {} put in the same order",
        "alpha": "Krippendorff's alpha of two {}",
    }
    numbers: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        for figure, text in named.items():
            found = {aspect: each[figure] for aspect, each in agreement.get(kind, {}).items()}
            known = {aspect: number for aspect, number in found.items() if number is not None}
            if known:
                numbers[text.format(kind)] = known
    return numbers
