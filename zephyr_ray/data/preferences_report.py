"""The report of a preferences stage: report.html and report.png, a picture of what came of the rows.

The page is one file that loads nothing and needs no script. Every text in it that came from data is escaped.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import numpy as np

from zephyr_ray.config.data import Preferences
from zephyr_ray.data import preferences_figure
from zephyr_ray.data.io import drop_report
from zephyr_ray.data.io.histogram import Histogram
from zephyr_ray.data.io.sources import names_of
from zephyr_ray.data.io.writer import Report
from zephyr_ray.data.preference_counts import SCORE, AnswerCounts, PairCounts
from zephyr_ray.pipeline.artifacts import Artifact

HTML, PNG = "report.html", "report.png"

_SCORE_BINS = 12
_LENGTH_BINS = 40
_RULES = {
    "random_lower": "the best answer against a random lower one",
    "lowest": "the best answer against the lowest one",
    "every_pair": "every two answers with different scores",
}


class Bars(NamedTuple):
    """A histogram to draw: `heights[i]` values lie from `edges[i]` to `edges[i + 1]`."""

    edges: list[float]
    heights: list[int]
    low: float = 0.0
    """The smallest of all values on these bins."""
    high: float = 0.0


@dataclass(frozen=True)
class Spread:
    """The scores of one model, on the same bins as those of the others."""

    model: str | None
    count: int
    mean: float
    bars: Bars


@dataclass(frozen=True)
class Duel:
    """Comparisons of two models' answers to the same prompts."""

    wins: int
    ties: int
    losses: int

    @property
    def count(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def share(self) -> float:
        """Comparisons in which the first scores higher; ties are no wins."""
        return self.wins / self.count


@dataclass(frozen=True)
class Picture:
    """Everything that the report shows, as numbers."""

    title: str
    subtitle: str
    rows_in: int
    added: int
    pairs: int
    dropped: list[tuple[str, int]]
    """By reason, the most frequent first."""
    noted: list[tuple[str, int | float]]
    kinds: list[tuple[str, int]]
    """What ranked the answers, and in how many rows."""
    spreads: dict[str, list[Spread]]
    """By aspect (the ranking score first), the models from the best to the worst; without names a single one."""
    models: list[str]
    """The models of the matrix, from the most to the fewest wins."""
    duels: dict[tuple[str, str], Duel]
    shares: list[tuple[str, int, int]]
    """Each model's chosen and rejected pairs, the largest share of chosen first."""
    chosen_lengths: Bars
    rejected_lengths: Bars
    chosen_scores: Bars
    rejected_scores: Bars
    length: dict[str, float | None]
    """median_chosen, median_rejected, chosen_longer, equally_long (shares); r_score and r_chosen (correlations)."""
    agreement: Mapping[str, Any]
    is_crowded: bool


def write_report(
    artifact: Artifact,
    section: Preferences,
    report: Report,
    answers: AnswerCounts,
    pairs: PairCounts,
    agreement: Mapping[str, Any] | None = None,
) -> list[str]:
    """Writes the page and the picture into the artifact and returns their names."""
    drawn = picture(section, report, answers, pairs, agreement)
    artifact.write_text(HTML, render(drawn))
    artifact.write_bytes(PNG, preferences_figure.draw(drawn))
    return [HTML, PNG]


def picture(
    section: Preferences,
    report: Report,
    answers: AnswerCounts,
    pairs: PairCounts,
    agreement: Mapping[str, Any] | None = None,
) -> Picture:
    """The numbers of the report."""
    assert section.train is not None
    duels = find_duels(answers)
    lengths = length_bars(pairs.chosen_characters, pairs.rejected_characters)
    scores = score_bars([pairs.chosen_scores, pairs.rejected_scores])
    return Picture(
        title="Preference pairs",
        subtitle=f"from {', '.join(names_of(section.train))}: {_rule(section, answers)}",
        rows_in=report.rows_in,
        added=report.added,
        pairs=report.rows_out,
        dropped=sorted(report.dropped.items(), key=lambda item: (-item[1], item[0])),
        noted=[(drop_report.spoken(name), number) for name, number in report.noted.items()],
        kinds=answers.kinds.most_common(),
        spreads={aspect: spreads(answers, aspect) for aspect in _aspects(answers)},
        models=rank(duels),
        duels=duels,
        shares=shares(pairs),
        chosen_lengths=lengths[0],
        rejected_lengths=lengths[1],
        chosen_scores=scores[0],
        rejected_scores=scores[1],
        length=length_numbers(pairs),
        agreement=agreement or {},
        is_crowded=answers.is_crowded or pairs.is_crowded,
    )


def render(drawn: Picture) -> str:
    """The page."""
    return _template().render(p=drawn, SCORE=SCORE)


# --- the numbers


def find_duels(answers: AnswerCounts) -> dict[tuple[str, str], Duel]:
    """Each ordered pair of models that were compared."""
    pairs = {*answers.wins, *answers.ties}
    return {
        (first, second): Duel(
            answers.wins[first, second],
            answers.ties[min(first, second), max(first, second)],
            answers.wins[second, first],
        )
        for one, other in pairs
        for first, second in ((one, other), (other, one))
    }


def rank(duels: Mapping[tuple[str, str], Duel]) -> list[str]:
    """Models by the mean of their wins and half their ties over the models they were compared with."""
    points: dict[str, list[float]] = {}
    for (model, _), duel in duels.items():
        points.setdefault(model, []).append((duel.wins + duel.ties / 2) / duel.count)
    return sorted(points, key=lambda model: (-sum(points[model]) / len(points[model]), model))


def spreads(answers: AnswerCounts, aspect: str) -> list[Spread]:
    """The scores of each model in one aspect."""
    by_model = {model: scores for (name, model), scores in answers.scores.items() if name == aspect}
    bars = score_bars(list(by_model.values()))
    made = [
        Spread(model, scores.total(), sum(value * count for value, count in scores.items()) / scores.total(), each)
        for (model, scores), each in zip(by_model.items(), bars, strict=True)
    ]
    return sorted(made, key=lambda spread: (-spread.mean, spread.model or ""))


def shares(pairs: PairCounts) -> list[tuple[str, int, int]]:
    """(model, pairs it was chosen in, pairs it was rejected in)."""
    found = [(model, pairs.chosen[model], pairs.rejected[model]) for model in {*pairs.chosen, *pairs.rejected}]
    return sorted(found, key=lambda each: (-each[1] / (each[1] + each[2]), each[0]))


def length_numbers(pairs: PairCounts) -> dict[str, float | None]:
    """How length and preference go together."""
    equal = pairs.pairs - pairs.chosen_longer - pairs.rejected_longer
    return {
        "median_chosen": pairs.chosen_characters.quantile(0.5),
        "median_rejected": pairs.rejected_characters.quantile(0.5),
        "chosen_longer": pairs.chosen_longer / pairs.pairs if pairs.pairs else None,
        "equally_long": equal / pairs.pairs if pairs.pairs else None,
        "r_score": pairs.length_score_correlation(),
        "r_chosen": pairs.length_chosen_correlation(),
    }


def score_bars(all_scores: Sequence[Counter[float]]) -> list[Bars]:
    """Histograms on common bins around multiples of a round number: each holds as many of the possible values."""
    values = sorted({value for scores in all_scores for value in scores})
    if not values:
        return [Bars([], []) for _ in all_scores]
    low, high = values[0], values[-1]
    width = _round_width(high - low, all(value == int(value) for value in values))
    first, last = math.floor(low / width + 0.5), math.floor(high / width + 0.5)
    edges = (np.arange(first, last + 2) - 0.5) * width
    return [_binned(list(scores), list(scores.values()), edges, low, high) for scores in all_scores]


def _round_width(span: float, is_whole: bool) -> float:
    """The smallest of 1, 2 and 5 (times a power of ten) that cuts the span into few bins."""
    power = 10.0 ** math.floor(math.log10(span / _SCORE_BINS)) if span > 0 else 1.0
    width = next((step * power for step in (1, 2, 5, 10) if span <= _SCORE_BINS * step * power), power)
    return max(width, 1.0) if is_whole else width


def length_bars(*histograms: Histogram) -> list[Bars]:
    """Histograms of characters on common bins, whose width grows with the length (answers differ in magnitude)."""
    low = min((each.low for each in histograms if each.bins), default=1)
    high = max((each.high for each in histograms if each.bins), default=0)
    if not high:
        return [Bars([], []) for _ in histograms]
    edges = np.geomspace(max(low, 1), max(high, low + 1) + 1, _LENGTH_BINS + 1)
    edges[0] = min(edges[0], low)
    return [_binned(list(each.bins), list(each.bins.values()), edges, low, high) for each in histograms]


def _binned(values: Sequence[float], counts: Sequence[int], edges: np.ndarray, low: float, high: float) -> Bars:
    heights, _ = np.histogram(values, bins=edges, weights=counts)
    return Bars(edges.tolist(), [int(height) for height in heights], low, high)


def _aspects(answers: AnswerCounts) -> list[str]:
    return [SCORE, *answers.aspects()] if answers.scored_rows else []


def _rule(section: Preferences, answers: AnswerCounts) -> str:
    if not answers.scored_rows:
        return "pairs as they came"
    score = "the aspects' mean" if section.score == "aspects" else "the overall score"
    margin = f", more than {section.margin:g} apart" if section.margin else ""
    return f"{_RULES[section.rejected]} by {score}{margin}"


# --- the page


@functools.lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["short"] = short
    text = resources.files("zephyr_ray").joinpath("templates/preferences_report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(text)


def short(number: float) -> str:
    """A number as a person reads it: thousands with commas, fractions with two digits."""
    return f"{number:,.0f}" if abs(number) >= 1000 or number == int(number) else f"{number:.2f}"
