"""The report of a preferences stage: report.html and report.png, a picture of what came of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zephyr_ray.config.data import Preferences
from zephyr_ray.data import preferences_figure, report_page
from zephyr_ray.data.io import drop_report
from zephyr_ray.data.io.sources import names_of
from zephyr_ray.data.io.writer import Report
from zephyr_ray.data.preference_counts import SCORE, AnswerCounts, PairCounts
from zephyr_ray.data.report_page import Bars, length_bars, round_bars
from zephyr_ray.pipeline.artifacts import Artifact

HTML, PNG = "report.html", "report.png"

_RULES = {
    "random_lower": "the best answer against a random lower one",
    "lowest": "the best answer against the lowest one",
    "every_pair": "every two answers with different scores",
}


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
    scores = round_bars([pairs.chosen_scores, pairs.rejected_scores])
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
    return report_page.render("preferences_report.html.jinja", p=drawn, SCORE=SCORE)


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
    bars = round_bars(list(by_model.values()))
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


def _aspects(answers: AnswerCounts) -> list[str]:
    return [SCORE, *answers.aspects()] if answers.scored_rows else []


def _rule(section: Preferences, answers: AnswerCounts) -> str:
    if not answers.scored_rows:
        return "pairs as they came"
    score = "the aspects' mean" if section.score == "aspects" else "the overall score"
    margin = f", more than {section.margin:g} apart" if section.margin else ""
    return f"{_RULES[section.rejected]} by {score}{margin}"
