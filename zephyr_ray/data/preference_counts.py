"""Counts of scored answers and of preference pairs that merge with others: what the report of `preferences` shows.

Their size is bounded whatever the number of rows: scores are kept to three digits, and beyond `MOST_MODELS` names they
are not told apart any more.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.data.binarize import Scored, compare
from zephyr_ray.data.io.histogram import Histogram
from zephyr_ray.data.io.lengths import message_characters

MOST_MODELS = 64
_NAME_LENGTH = 120  # characters of a model's name
_DIGITS = 3

SCORE = "score"
"""The score that ranks the answers, among the aspects."""

Scores = Counter[float]


@dataclass
class AnswerCounts:
    """What was seen of source rows and their scored answers."""

    rows: int = 0
    """Source rows, whatever became of them."""
    scored_rows: int = 0
    """Those with scored answers."""
    answers: int = 0
    drawn_among_best: int = 0
    """Rows in which several different answers shared the best score and one of them was drawn."""
    disagreeing: int = 0
    """Answers whose overall rating and aspects contradict each other."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Rows by what ranked their answers."""
    scores: dict[tuple[str, str | None], Scores] = field(default_factory=dict)
    """Scores by (`SCORE` or an aspect, model)."""
    wins: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Comparisons of answers to one prompt: the first model's scores higher than the second's."""
    ties: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The same where scores are equal; the names are sorted."""
    is_crowded: bool = False
    """More than `MOST_MODELS` names: nothing is known by model."""

    def see(self, scored: Scored) -> None:
        """Counts the scored answers of one row."""
        self.scored_rows += 1
        self.answers += len(scored.completions)
        self.disagreeing += scored.disagreeing
        self.kinds[scored.kind] += 1
        named = []
        for answer in scored.completions:
            model = None if self.is_crowded or answer.model is None else answer.model[:_NAME_LENGTH]
            self._scores(SCORE, model)[answer.score] += 1
            for aspect, rating in answer.ratings.items():
                self._scores(aspect[:_NAME_LENGTH], model)[rating] += 1
            if model is not None:
                named.append((model, answer))
        for (first, a), (second, b) in itertools.combinations(named, 2):
            compared = compare(a, b) if first != second else None
            if compared is None:
                continue
            if not compared.lead:
                self.ties[(first, second) if first < second else (second, first)] += 1
            else:
                self.wins[(first, second) if compared.lead > 0 else (second, first)] += 1

    def models(self) -> list[str]:
        return sorted({model for _, model in self.scores if model is not None})

    def aspects(self) -> list[str]:
        return sorted({aspect for aspect, _ in self.scores if aspect != SCORE})

    def add(self, other: AnswerCounts) -> None:
        """Adds everything that another one has counted."""
        self.rows += other.rows
        self.scored_rows += other.scored_rows
        self.answers += other.answers
        self.drawn_among_best += other.drawn_among_best
        self.disagreeing += other.disagreeing
        self.kinds.update(other.kinds)
        for (aspect, model), scores in other.scores.items():
            _update(self._scores(aspect, model), scores)
        self.wins.update(other.wins)
        self.ties.update(other.ties)
        self.is_crowded |= other.is_crowded or len(self.models()) > MOST_MODELS
        if self.is_crowded:
            self._forget_models()

    def _scores(self, aspect: str, model: str | None) -> Scores:
        key = aspect, model
        if key not in self.scores:
            self.scores[key] = Counter()
        return self.scores[key]

    def _forget_models(self) -> None:
        known, self.scores = self.scores, {}
        for (aspect, _), scores in known.items():
            self._scores(aspect, None).update(scores)
        self.wins.clear()
        self.ties.clear()


@dataclass
class PairCounts:
    """What was seen of kept pairs."""

    pairs: int = 0
    chosen_longer: int = 0
    rejected_longer: int = 0
    chosen_characters: Histogram = field(default_factory=Histogram)
    rejected_characters: Histogram = field(default_factory=Histogram)
    chosen_squares: int = 0
    """Sum of the squares of chosen lengths."""
    rejected_squares: int = 0
    chosen: Counter[str] = field(default_factory=Counter)
    """Pairs by the chosen answer's model."""
    rejected: Counter[str] = field(default_factory=Counter)
    chosen_scores: Scores = field(default_factory=Counter)
    rejected_scores: Scores = field(default_factory=Counter)
    length_squares: float = 0.0
    """Sum of the squared length differences of pairs with two scores, in characters."""
    score_squares: float = 0.0
    """The same of score differences."""
    products: float = 0.0
    """Sum of length difference times score difference."""
    is_crowded: bool = False

    def add(self, other: PairCounts) -> None:
        """Adds everything that another one has counted."""
        for name in ("pairs", "chosen_longer", "rejected_longer", "chosen_squares", "rejected_squares"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("length_squares", "score_squares", "products"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.chosen_characters.add(other.chosen_characters)
        self.rejected_characters.add(other.rejected_characters)
        _update(self.chosen_scores, other.chosen_scores)
        _update(self.rejected_scores, other.rejected_scores)
        self.chosen.update(other.chosen)
        self.rejected.update(other.rejected)
        self.is_crowded |= other.is_crowded or len(self.chosen | self.rejected) > MOST_MODELS
        if self.is_crowded:
            self.chosen.clear()
            self.rejected.clear()

    def length_score_correlation(self) -> float | None:
        """Pearson's r between length difference and score difference, or None where nothing varies.

        Each pair counts in both directions (a - b and b - a), so the means are 0: which of the two answers is called
        the first is no property of them.
        """
        scale = math.sqrt(self.length_squares * self.score_squares)
        return self.products / scale if scale else None

    def length_chosen_correlation(self) -> float | None:
        """The point-biserial correlation of an answer's length with being chosen, or None where nothing varies."""
        if not self.pairs:
            return None
        chosen, rejected = self.chosen_characters.sum / self.pairs, self.rejected_characters.sum / self.pairs
        mean = (chosen + rejected) / 2
        variance = (self.chosen_squares + self.rejected_squares) / (2 * self.pairs) - mean**2
        return (chosen - rejected) / 2 / math.sqrt(variance) if variance > 1e-9 * mean**2 else None


def count_pairs(kept: pa.Table) -> PairCounts:
    """Counts rows of `schemas.PREFERENCES`."""
    counts = PairCounts(pairs=kept.num_rows)
    if not kept.num_rows:
        return counts
    chosen, rejected = message_characters(kept["chosen"]), message_characters(kept["rejected"])
    longer = chosen - rejected
    counts.chosen_longer, counts.rejected_longer = int((longer > 0).sum()), int((longer < 0).sum())
    counts.chosen_characters.count(chosen)
    counts.rejected_characters.count(rejected)
    counts.chosen_squares, counts.rejected_squares = int(chosen @ chosen), int(rejected @ rejected)
    counts.chosen, counts.rejected = _names(kept["chosen_model"]), _names(kept["rejected_model"])
    high, low = _floats(kept["score_chosen"]), _floats(kept["score_rejected"])
    _update(counts.chosen_scores, Counter(high[np.isfinite(high)].tolist()))
    _update(counts.rejected_scores, Counter(low[np.isfinite(low)].tolist()))
    known = np.isfinite(high) & np.isfinite(low)
    gap, longer = (high - low)[known], longer[known].astype(np.float64)
    counts.length_squares, counts.score_squares = float(longer @ longer), float(gap @ gap)
    counts.products = float(longer @ gap)
    return counts


def _update(scores: Scores, others: Scores) -> None:
    for value, count in others.items():
        scores[rounded(value)] += count


def rounded(score: float) -> float:
    """A score to three digits: ratings are exact, and whatever a reward model gives has some thousand values."""
    return float(f"{score:.{_DIGITS}g}")


def _names(column: pa.ChunkedArray) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in pc.value_counts(column.drop_null()).to_pylist():
        found[each["values"][:_NAME_LENGTH]] += each["counts"]
    return found


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy().astype(np.float64)  # null is NaN
