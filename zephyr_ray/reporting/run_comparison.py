"""Several runs side by side: what of their recipes differs, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zephyr_ray.data.report_page import short
from zephyr_ray.reporting import settings
from zephyr_ray.reporting.alarms import at_the_end
from zephyr_ray.reporting.settings import Difference

if TYPE_CHECKING:
    from zephyr_ray.reporting.run_picture import RunView

_NONE = "\u2013"
_AT_THE_END = {"loss": "loss", "rewards/accuracies": "reward accuracy", "rewards/margins": "reward margin"}


@dataclass(frozen=True)
class Comparison:
    """Rows of (what, one value for each run)."""

    labels: list[str]
    recipe: list[Difference]
    rows: list[tuple[str, list[str]]]
    """What each stage read, kept and dropped, where it differs."""
    results: list[tuple[str, list[str]]]


def compared(runs: Sequence[RunView]) -> Comparison:
    """What differs between runs, and what came of it."""
    fields = [settings.recipe_fields(run.recipe) for run in runs]
    return Comparison(
        labels=[run.label for run in runs],
        recipe=settings.differences(fields),
        rows=_rows(runs),
        results=[*_trained(runs), *_evaluated(runs), *_costs(runs)],
    )


def _rows(runs: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    arrows = [{arrow.stage: arrow for chain in run.chains for arrow in chain.arrows} for run in runs]
    names = dict.fromkeys(name for each in arrows for name in each)
    made = []
    for name in names:
        found = [each.get(name) for each in arrows]
        cells = [_NONE if a is None else f"{a.before:,} in, {a.rows_out:,} out, {a.lost:,} dropped" for a in found]
        if len(set(cells)) > 1:
            made.append((name, cells))
    return made


def _trained(runs: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    by_run = [{each.stage: each for each in run.trainings} for run in runs]
    made = []
    for stage in dict.fromkeys(name for each in by_run for name in each):
        for metric, what in _AT_THE_END.items():
            values = [at_the_end(each[stage].rows, metric) if stage in each else None for each in by_run]
            if any(value is not None for value in values):
                cells = [_NONE if value is None else f"{value:.4g}" for value in values]
                made.append((f"{stage}: {what}, mean of the last steps", cells))
    return made


def _evaluated(runs: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    by_run = [
        {(each.stage, each.what, each.model): each for shown in run.evaluations for each in shown.evaluated.estimates}
        for run in runs
    ]
    return [
        (
            " ".join(filter(None, [f"{key[0]}:", key[1], key[2]])),
            [_NONE if key not in each else f"{each[key].shown} ({each[key].shown_interval})" for each in by_run],
        )
        for key in dict.fromkeys(key for each in by_run for key in each)
    ]


def _costs(runs: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    seconds = [sum(stage.seconds or 0 for stage in run.stages) for run in runs]
    usd = [sum(stage.usd or 0 for stage in run.stages) for run in runs]
    made = [("seconds of all stages", [short(round(each)) for each in seconds])]
    return made + ([("US dollars", [f"{each:.2f}" for each in usd])] if any(usd) else [])
