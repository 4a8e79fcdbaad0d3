"""What more answers to a prompt buy: `gain` of the stage that chooses the best of them, as curves over n."""

from __future__ import annotations

from collections.abc import Sequence

from zephyr_ray.reporting.charts import LineChart, line_chart
from zephyr_ray.reporting.run_stages import MadeStage

_PANELS = (
    ("best", "Mean score of the best of n", "score, by the judge"),
    ("pass", "pass@n: a right answer among n", "share of prompts"),
)


def gain_charts(stages: Sequence[MadeStage]) -> list[LineChart]:
    """A chart of each measure that a stage has counted."""
    gains = [gain for stage in stages if (gain := stage.manifest.get("gain"))]
    drawn = [
        line_chart(title, axis, "answers to a prompt, n", [(title, [(each["n"], each[measure]) for each in gain])])
        for gain in gains
        for measure, title, axis in _PANELS
        if measure in gain[0]
    ]
    return [chart for chart in drawn if chart is not None]
