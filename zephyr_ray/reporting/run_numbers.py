"""report.json: the numbers of a run's page, without its texts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zephyr_ray.reporting import training_curves

if TYPE_CHECKING:
    from zephyr_ray.reporting.run_picture import Picture, RunView


def numbers(picture: Picture) -> dict[str, Any]:
    """What the page shows, as JSON values."""
    compared = picture.comparison
    return {
        "runs": [_run(each) for each in picture.runs],
        "comparison": None if compared is None else asdict(compared),
    }


def _run(run: RunView) -> dict[str, Any]:
    return {
        "label": run.label,
        "root": run.root,
        "alarms": [asdict(alarm) for alarm in run.alarms],
        "stages": [{name: value for name, value in asdict(stage).items() if name != "pages"} for stage in run.stages],
        "missing": run.missing,
        "rows": [
            {
                "stage": arrow.stage,
                "in": arrow.rows_in,
                "added": arrow.added,
                "out": arrow.rows_out,
                "dropped": dict(arrow.dropped),
            }
            for chain in run.chains
            for arrow in chain.arrows
        ],
        "gains": {chart.title: chart.lines[0].values for chart in run.gains},
        "trainings": {
            training.stage: {
                "curves": {
                    metric: training_curves.points(training, metric)
                    for panel in training_curves.PANELS
                    for metric, _ in panel.metrics
                },
                "tokens_per_second": training.tokens_per_second,
                "summary": training.summary,
            }
            for training in run.trainings
        },
        "evaluations": [
            {
                "stage": shown.evaluated.stage,
                "estimates": [asdict(each) for each in shown.evaluated.estimates],
                "categories": shown.evaluated.categories,
                "duels": [asdict(each) for each in shown.evaluated.duels],
            }
            for shown in run.evaluations
        ],
        "versions": run.versions,
        "commits": run.commits,
    }
