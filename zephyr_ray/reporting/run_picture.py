"""Everything that a run's page shows, as numbers and texts: made from manifests and a bounded sample of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zephyr_ray.data.io.histogram import Histogram
from zephyr_ray.data.report_page import Bars, length_bars, round_bars, short
from zephyr_ray.reporting import alarms, charts, evaluations, row_flow, settings, training_curves
from zephyr_ray.reporting.alarms import Alarm
from zephyr_ray.reporting.charts import Forest, LineChart, Radar
from zephyr_ray.reporting.evaluations import Evaluated
from zephyr_ray.reporting.gain_curves import gain_charts
from zephyr_ray.reporting.run_comparison import Comparison, compared
from zephyr_ray.reporting.run_stages import MadeStage, Round
from zephyr_ray.reporting.samples import Answer, Answers
from zephyr_ray.reporting.text_form import MARKS, Form, form, openings
from zephyr_ray.reporting.training_curves import Training

_PROMPTS_SHOWN, _ANSWERS_SHOWN, _CHARACTERS_SHOWN = 8, 2, 1500
_STATS = ("mean", "p50", "p90", "p99", "max")


@dataclass(frozen=True)
class Sampled:
    """Rows of a round that were looked at."""

    pairs: Sequence[Mapping[str, Any]] = ()
    judged: Sequence[Mapping[str, Any]] = ()
    answers: Sequence[Answers] = ()
    problems: Sequence[str] = ()
    """What could not be read."""


@dataclass(frozen=True)
class FormTable:
    """What texts of several kinds look like."""

    about: str
    names: list[str]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Pairs:
    """Chosen and rejected answers of a sample of pairs."""

    sampled: int
    lengths: list[Bars]
    scores: list[Bars]


@dataclass(frozen=True)
class Shown:
    """An evaluation as it is drawn."""

    evaluated: Evaluated
    forests: list[Forest]
    radar: Radar | None
    models: list[str]
    """Of the matrix of wins."""
    rates: Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Side:
    """Answers of several models to a prompt, cut to what a page can show."""

    prompt: str
    answers: list[tuple[str, list[Answer]]]


@dataclass(frozen=True)
class RunView:
    """One run, or one round of it."""

    label: str
    root: str
    finished: int
    stages: list[settings.Cost]
    missing: list[str]
    """Stages that the recipe has and the run does not."""
    alarms: list[Alarm]
    chains: list[row_flow.Chain]
    stats: list[tuple[str, str, list[str]]]
    """(stage, what, mean and quantiles)."""
    noted: list[tuple[str, str, str]]
    agreement: list[tuple[str, str, str, str, str]]
    """(stage, what was compared, aspect, share in the same order, Krippendorff's alpha)."""
    judged: list[tuple[str, int, str]]
    """(model, rated answers of the sample, their mean overall score)."""
    pairs: Pairs | None
    forms: list[FormTable]
    gains: list[LineChart]
    trainings: list[Training]
    evaluations: list[Shown]
    sides: list[tuple[str, list[Side]]]
    versions: dict[str, list[str]]
    commits: dict[str, str]
    recipe: str
    sampled: Sampled = field(repr=False, default=Sampled())


@dataclass(frozen=True)
class Picture:
    """The page."""

    title: str
    subtitle: str
    runs: list[RunView]
    curves: list[tuple[str, list[LineChart]]]
    """By training, all runs in one chart."""
    comparison: Comparison | None


def picture(rounds: Sequence[tuple[Round, Sampled]], missing: Mapping[str, Sequence[str]]) -> Picture:
    """The page of these rounds.

    Args:
        rounds: Each with the rows of it that were looked at.
        missing: By label the stages that a recipe has and its run does not.
    """
    runs = [view(found, sampled, missing.get(found.label, ())) for found, sampled in rounds]
    several = len(runs) > 1
    finished = sum(run.finished for run in runs)
    return Picture(
        title=" and ".join(run.label for run in runs) if len(runs) < 3 else f"{len(runs)} runs side by side",
        subtitle=", ".join(dict.fromkeys(run.root for run in runs)) + f": {finished} finished stages",
        runs=runs,
        curves=curves(runs),
        comparison=compared(runs) if several else None,
    )


def view(found: Round, sampled: Sampled, missing: Sequence[str] = ()) -> RunView:
    """What is shown of one round."""
    stages = found.stages
    trained = training_curves.trainings(stages)
    evaluated = evaluations.evaluations(stages)
    sides = [form(row[side][-1]["content"] for row in sampled.pairs) for side in ("chosen", "rejected")]
    return RunView(
        label=found.label,
        root=found.run.root,
        finished=sum(stage.is_finished for stage in stages),
        stages=settings.costs(found),
        missing=[*missing],
        alarms=find_alarms(stages, sampled, trained, evaluated, sides),
        chains=row_flow.chains(stages),
        stats=[row for stage in stages for row in _stats(stage)],
        noted=[
            (stage.name, str(name).replace("_", " "), short(number))
            for stage in stages
            for name, number in stage.manifest.get("noted", {}).items()
        ],
        agreement=[row for stage in stages for row in _agreement(stage)],
        judged=_judged(sampled.judged),
        pairs=_pairs(sampled.pairs) if sampled.pairs else None,
        forms=_forms(sampled, sides),
        gains=gain_charts(stages),
        trainings=trained,
        evaluations=[_shown(each) for each in evaluated],
        sides=[(each.stage, _sides(each)) for each in sampled.answers],
        versions=settings.versions(stages),
        commits=settings.commits(stages),
        recipe=settings.recipe_text(found.run, found.folder),
        sampled=sampled,
    )


def find_alarms(
    stages: Sequence[MadeStage],
    sampled: Sampled,
    trained: Sequence[Training],
    evaluated: Sequence[Evaluated],
    sides: Sequence[Form],
) -> list[Alarm]:
    """Every alarm of a round, notes last."""
    found = [alarm for stage in stages for alarm in _of_stage(stage)]
    if sampled.pairs:
        chosen, rejected = sides
        found += alarms.form_rewarded(chosen, rejected, "chosen answers", "rejected ones", "preferences")
    for training in trained:
        found += alarms.falling_chosen(training.rows, training.beta, training.stage)
    for answers in sampled.answers:
        if pair := answers.policy_and_start:
            policy, start = (form(answers.texts(name)) for name in pair)
            found += alarms.growing_answers(policy, start, *pair)
            found += alarms.form_rewarded(policy, start, f"{pair[0]}'s answers", f"{pair[1]}'s", answers.stage)
    for each in evaluated:
        found += alarms.got_worse(each.differences)
        found += alarms.not_shown(each.differences)
        measures = each.by_measure()
        headline = measures.get("average") or next(iter(measures.values()), [])
        found += [] if each.differences else alarms.overlapping(headline)
        found += alarms.unfinished(each.stage, each.problem) if each.problem else []
    found += [alarm for problem in sampled.problems for alarm in alarms.unfinished("samples", problem)]
    return sorted(found, key=lambda alarm: alarm.level != "alarm")


def curves(runs: Sequence[RunView]) -> list[tuple[str, list[LineChart]]]:
    """A chart of each panel that has data, by training; with several runs each line says whose it is."""
    names = dict.fromkeys(training.stage for run in runs for training in run.trainings)
    made = []
    for name in names:
        those = [(run.label, each) for run in runs for each in run.trainings if each.stage == name]
        drawn = [_chart(panel, those) for panel in training_curves.PANELS]
        made.append((name, [chart for chart in drawn if chart is not None]))
    return [(name, drawn) for name, drawn in made if drawn]


def _chart(panel: training_curves.Panel, those: Sequence[tuple[str, Training]]) -> LineChart | None:
    series = [
        (f"{label}: {shown}" if len(those) > 1 else shown, training_curves.points(training, metric))
        for metric, shown in panel.metrics
        for label, training in those
    ]
    return charts.line_chart(panel.title, panel.axis, "optimizer step", series)


def _of_stage(stage: MadeStage) -> list[Alarm]:
    manifest, name = stage.manifest, stage.name
    found = [] if stage.is_finished else alarms.unfinished(name, stage.status)
    found += alarms.told_by_stage(name, manifest.get("alarms", ()))
    arrow = row_flow.arrow_of(stage)
    if arrow is not None:
        found += alarms.many_dropped(arrow) + alarms.lost_rows(arrow)
        found += alarms.contamination(name, dict(arrow.dropped), manifest.get("noted", {}))
    stats = manifest.get("stats", {})
    if name == "preferences":
        chosen, rejected = (stats.get(f"{side}_characters", {}).get("mean") for side in ("chosen", "rejected"))
        found += alarms.length_bias(chosen, rejected, name)
    return found + alarms.judge_inconsistency(manifest.get("agreement", {}), name)


def _stats(stage: MadeStage) -> list[tuple[str, str, list[str]]]:
    return [
        (stage.name, str(what).replace("_", " "), [short(round(each.get(name, 0), 2)) for name in _STATS])
        for what, each in stage.manifest.get("stats", {}).items()
    ]


def _agreement(stage: MadeStage) -> list[tuple[str, str, str, str, str]]:
    told = {"orders": "the two orders", "repeats": "two repeats", "judges": "two judges"}
    agreement = stage.manifest.get("agreement", {})
    return [
        (stage.name, text, aspect.replace("_", " "), _percent(each["same_order"]), _number(each["alpha"]))
        for kind, text in told.items()
        for aspect, each in agreement.get(kind, {}).items()
    ]


def _judged(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, str]]:
    scores: dict[str, list[float]] = {}
    for row in rows:
        for each in row["completions"]:
            if each["overall_score"] is not None:
                scores.setdefault(each["model"] or "no name", []).append(each["overall_score"])
    means = [(model, len(found), sum(found) / len(found)) for model, found in scores.items()]
    return [(model, count, f"{mean:.3g}") for model, count, mean in sorted(means, key=lambda each: -each[2])]


def _pairs(rows: Sequence[Mapping[str, Any]]) -> Pairs:
    lengths, scores = [], []
    for side in ("chosen", "rejected"):
        histogram = Histogram()
        histogram.count(np.array([sum(len(each["content"]) for each in row[side]) for row in rows]))
        lengths.append(histogram)
        scores.append(Counter(row[f"score_{side}"] for row in rows if row[f"score_{side}"] is not None))
    return Pairs(len(rows), length_bars(*lengths), round_bars(scores))


def _forms(sampled: Sampled, sides: Sequence[Form]) -> list[FormTable]:
    made = [_form_table("preferences", ["chosen", "rejected"], sides)] if sampled.pairs else []
    for each in sampled.answers:
        made.append(_form_table(each.stage, each.models, [form(each.texts(name)) for name in each.models]))
    return made


def _form_table(about: str, names: list[str], sides: Sequence[Form]) -> FormTable:
    rows = [("texts", [short(side.texts) for side in sides])]
    rows.append(("characters, mean", [short(round(side.mean_characters, 1)) for side in sides]))
    rows += [(f"with {what}", [_percent(side.share(what)) for side in sides]) for what in MARKS]
    rows += [(f"begin \u201c{text}\u201d", [_percent(share) for share in shares]) for text, shares in openings(sides)]
    return FormTable(about, names, rows)


def _shown(each: Evaluated) -> Shown:
    rates = {(duel.first, duel.second): duel.rate for duel in each.duels}
    rates |= {(second, first): 1 - rate for (first, second), rate in rates.items()}
    models = list(dict.fromkeys(first for first, _ in rates))
    return Shown(each, charts.forests(each.estimates), charts.radar(each.categories), models, rates)


def _sides(answers: Answers) -> list[Side]:
    shown = answers.rows[:: max(1, len(answers.rows) // _PROMPTS_SHOWN)][:_PROMPTS_SHOWN]
    return [
        Side(
            _cut(prompt),
            [
                (model, [Answer(_cut(answer.text), answer.passed) for answer in given[:_ANSWERS_SHOWN]])
                for model, given in zip(answers.models, by_model, strict=True)
            ],
        )
        for prompt, by_model in shown
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS_SHOWN else f"{text[:_CHARACTERS_SHOWN]}\u2026"


def _percent(share: float | None) -> str:
    return "\u2013" if share is None else alarms.percent(share)


def _number(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.2f}"
