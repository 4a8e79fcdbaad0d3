"""The report of the stage `selected_dialogues`: report.html, which holds the chosen dialogues against all of them and
against as many that were drawn at random."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zephyr_ray.config.selection import Selection
from zephyr_ray.data import report_page
from zephyr_ray.data.io.histogram import Histogram
from zephyr_ray.data.report_page import Bars, length_bars, round_bars, short, whole_bars
from zephyr_ray.data.selection.arms import Arm, Arms, ScoreCounts
from zephyr_ray.data.selection.coverage import Coverage
from zephyr_ray.data.selection.topic_shares import TopicShares
from zephyr_ray.pipeline.artifacts import Artifact

HTML = "report.html"

_MOST_SOURCES = 30


@dataclass(frozen=True)
class SourceShares:
    """The share of a source file in each arm."""

    name: str
    everything: float
    chosen: float
    random: float


@dataclass(frozen=True)
class Picture:
    """Everything that the page shows. What is measured comes as (what, of all, of the chosen, of the drawn ones)."""

    title: str
    subtitle: str
    before: int
    after: int
    is_control: bool
    """Whether the chosen ones are the control arm itself."""
    comparison: list[tuple[str, ...]]
    lengths: list[Bars]
    """Characters of a dialogue: chosen, drawn."""
    messages: list[Bars]
    scores: list[Bars]
    """Empty where they were not chosen by a score."""
    sources: list[SourceShares]
    topics: Sequence[TopicShares]
    """Empty where the dialogues have no vectors."""


def write_report(
    artifact: Artifact,
    section: Selection,
    counted: Arms,
    scores: ScoreCounts | None,
    covered: tuple[Coverage, Coverage] | None,
    topics: Sequence[TopicShares] = (),
) -> list[str]:
    """Writes the page into the artifact, and returns lines for a person.

    Args:
        artifact: The chosen dialogues.
        section: How they were chosen.
        counted: What they, all, and the drawn ones are like.
        scores: Of all three, where they were chosen by scores.
        covered: How well the chosen and the drawn ones cover all of them, where they were chosen by diversity.
        topics: What they are about, likewise.
    """
    drawn = picture(section, counted, scores, covered, topics)
    artifact.write_text(HTML, report_page.render("selection_report.html.jinja", p=drawn))
    width = max(len(what) for what, *_ in drawn.comparison)
    return [
        f"{drawn.after:,} of {drawn.before:,} dialogues by {section.by}, beside as many at random:",
        *(f"  {what:{width}}  {chosen} (random {random})" for what, _, chosen, random in drawn.comparison[1:]),
    ]


def picture(
    section: Selection,
    counted: Arms,
    scores: ScoreCounts | None,
    covered: tuple[Coverage, Coverage] | None,
    topics: Sequence[TopicShares] = (),
) -> Picture:
    """The numbers of the report."""
    arms = _all(counted)
    return Picture(
        title="Selected dialogues",
        subtitle=f"{short(counted.chosen.dialogues)} of {short(counted.everything.dialogues)}, by {section.by}",
        before=counted.everything.dialogues,
        after=counted.chosen.dialogues,
        is_control=section.by == "random",
        comparison=[
            ("Dialogues", *(short(arm.dialogues) for arm in arms)),
            ("Characters, median", *(short(arm.characters.quantile(0.5)) for arm in arms)),
            ("Characters, 90 % have at most", *(short(arm.characters.quantile(0.9)) for arm in arms)),
            ("Characters of answers, median", *(short(arm.answer_characters.quantile(0.5)) for arm in arms)),
            ("Messages of a dialogue, mean", *(f"{_mean(arm.messages, arm.dialogues):.2f}" for arm in arms)),
            *([] if scores is None else [_score_row(scores)]),
            *([] if covered is None else _coverage_rows(*covered)),
        ],
        lengths=length_bars(counted.chosen.characters, counted.random.characters),
        messages=whole_bars(counted.chosen.messages, counted.random.messages),
        scores=[] if scores is None else round_bars([scores.chosen, scores.random]),
        sources=_sources(counted),
        topics=topics,
    )


def _score_row(scores: ScoreCounts) -> tuple[str, ...]:
    means = (_mean_of(counts) for counts in (scores.everything, scores.chosen, scores.random))
    return "Score, mean", *("\u2013" if mean is None else f"{mean:.3g}" for mean in means)


def _mean_of(counts: Mapping[float, int]) -> float | None:
    return statistics.fmean(counts, weights=counts.values()) if counts else None


def _coverage_rows(chosen: Coverage, random: Coverage) -> list[tuple[str, ...]]:
    return [
        (f"Cosine distance of any dialogue to the nearest, {name}", "\u2013", f"{one:.3f}", f"{other:.3f}")
        for name, one, other in (("mean", chosen.mean, random.mean), ("largest", chosen.largest, random.largest))
    ]


def _sources(counted: Arms) -> list[SourceShares]:
    """The largest files, and the others together."""
    names = [name for name, _ in counted.everything.sources.most_common(_MOST_SOURCES)]
    found = [
        SourceShares(name, *(arm.sources[name] / max(1, arm.dialogues) for arm in _all(counted))) for name in names
    ]
    others = len(counted.everything.sources) - len(names)
    if others:
        left = [1 - sum(getattr(each, arm) for each in found) for arm in ("everything", "chosen", "random")]
        found.append(SourceShares(f"{others:,} more files", *left))
    return found


def _all(counted: Arms) -> tuple[Arm, Arm, Arm]:
    return counted.everything, counted.chosen, counted.random


def _mean(histogram: Histogram, count: int) -> float:
    return histogram.sum / max(1, count)
