"""Plain lines, where the output is not a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from tests.unit.pipeline.test_progress_text import progress
from tests.unit.pipeline.test_stage_table import finished, plan
from zephyr_ray.pipeline.events import Alarm, Event, Failed, Finished, Said, StageSkipped, StageStarted
from zephyr_ray.pipeline.plain_lines import PlainLines


def printed(*events: tuple[float, Event]) -> list[str]:
    """What is printed of events at these seconds."""
    out, now = io.StringIO(), [0.0]
    view = PlainLines(Console(file=out, highlight=False, soft_wrap=True), clock=lambda: now[0])
    for at, event in events:
        now[0] = at
        view.show(event)
    assert "\r" not in out.getvalue()
    assert "\x1b" not in out.getvalue()
    return out.getvalue().splitlines()


def test_a_line_for_what_happens() -> None:
    long = "[bold]a path/of many characters[/bold] " * 8
    assert printed(
        (0, plan(prompts="done", sft="to do")),
        (0, StageSkipped(stage="prompts")),
        (1, StageStarted(stage="sft", unit="steps")),
        (1, Said(stage="sft", text=long)),
        (76, finished("sft")),
        (76, Alarm(stage="sft", text="  ALARM: the loss rose")),
        (77, Finished(seconds=77.4, log="run/logs/a.log")),
    ) == [
        "prompts                already done",
        long,
        "sft                    done in 1:15",
        "  ALARM: the loss rose",
        "finished in 77 s; log: run/logs/a.log",
    ]


def test_how_a_command_failed() -> None:
    assert printed((0, Failed(message="x: do y", status=2, log="a.log"))) == ["error: x: do y", "log: a.log"]
    assert printed((0, Failed(message="ValueError: z", status=1))) == ["failed: ValueError: z"]
    assert printed((0, Failed(message="interrupted; ...", status=130))) == ["interrupted; ..."]


def test_progress_is_a_line_every_ten_seconds_if_it_is_new() -> None:
    counts = [0, 0, 0, 0, 5, 8, 9, 9, 9, 9, 9, 9, 9]  # a reading every four seconds
    reports = [(4.0 * number, progress(done, 9)) for number, done in enumerate(counts)]
    lines = printed((0, StageStarted(stage="sft", unit="steps")), *reports)
    assert [line.split()[1] for line in lines] == ["starting", "9/9"]
    lines = printed((0, StageStarted(stage="sft", unit="steps")), *reports[:5], (17.0, progress(5, 9)))
    assert [line.split()[1] for line in lines] == ["starting"]


def test_a_new_metric_is_new() -> None:
    losses = [
        (10.0 + 10 * number, progress(2, 4, metrics={"loss": loss})) for number, loss in enumerate((1.0, 1.0, 0.5))
    ]
    assert [line.split()[-1] for line in printed(*losses)] == ["1", "0.5"]
