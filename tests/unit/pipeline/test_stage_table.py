"""The table of a run's stages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.unit.pipeline.test_progress_text import progress
from zephyr_ray.pipeline import stage_table
from zephyr_ray.pipeline.events import (
    Event,
    Failed,
    Planned,
    PlannedStage,
    StageFinished,
    StageSkipped,
    StageStarted,
    StageStatus,
)
from zephyr_ray.pipeline.stage_table import Row


def plan(**stages: StageStatus) -> Planned:
    return Planned(
        stages=tuple(PlannedStage(name=n, unit="rows", reads=(), status=s, changed=()) for n, s in stages.items())
    )


def finished(stage: str, seconds: float = 75.0, dropped: int = 0) -> StageFinished:
    counts = {"in": 1000, "out": 1000 - dropped}
    reasons = {"too_long": dropped} if dropped else {}
    return StageFinished(stage=stage, counts=counts, dropped=reasons, seconds=seconds, cost=None)


def after(*events: tuple[float, Event]) -> tuple[Row, ...]:
    rows: tuple[Row, ...] = ()
    for now, event in events:
        rows = stage_table.after(rows, event, now)
    return rows


def shown(rows: Sequence[Row], now: float = 0.0, width: int = 80, height: int | None = None) -> list[str]:
    return [line.plain.rstrip() for line in stage_table.lines(rows, now, width, height)]


TRAINING = progress(
    120, 750, rate=3.4, seconds_left=185.0, metrics={"loss": 1.25, "margin": 0.1, "accuracy": 0.6, "lr": 2e-4}
).model_copy(update={"stage": "dpo"})
UNDER_WAY: tuple[tuple[float, Event], ...] = (
    (0.0, plan(prompts="done", preferences="to do", dpo="unfinished", held_out="to do")),
    (1.0, StageSkipped(stage="prompts")),
    (2.0, StageStarted(stage="preferences", unit="rows")),
    (77.0, finished("preferences", dropped=12)),
    (80.0, StageStarted(stage="dpo", unit="steps")),
    (100.0, TRAINING),
)


def test_all_stages_with_what_became_of_each() -> None:
    assert shown(after(*UNDER_WAY), now=115.0) == [
        "prompts      done earlier",
        "preferences  done          1:15  988 rows  12 dropped",
        "dpo          running       0:35  120/750 steps  3.4/s  3:05 left  loss 1.25",
        "                           margin 0.1  accuracy 0.6  lr 0.0002",
        "held_out     waiting",
    ]


def test_on_a_narrow_terminal_what_there_is_to_say_goes_below() -> None:
    lines = shown(after(*UNDER_WAY), now=115.0, width=39)
    assert lines == [
        "prompts      done earlier",
        "preferences  done",
        "  1:15  988 rows  12 dropped",
        "dpo          running",
        "  0:35  120/750 steps  3.4/s  3:05 left",
        "  loss 1.25  margin 0.1  accuracy 0.6",
        "  lr 0.0002",
        "held_out     waiting",
    ]


def test_a_wide_terminal_has_a_bar() -> None:
    (line,) = [line for line in shown(after(*UNDER_WAY), now=115.0, width=120) if line.startswith("dpo")]
    assert f"{'━' * 3}{'─' * 17}  120/750 steps" in line


@pytest.mark.parametrize("width", [20, 27, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = stage_table.lines(after(*UNDER_WAY), 115.0, width)
    assert max(line.cell_len for line in lines) <= width


def test_on_a_low_terminal_the_stage_that_runs_stays_and_the_others_are_counted() -> None:
    names = [f"stage_{number}" for number in range(12)]
    statuses: dict[str, StageStatus] = dict.fromkeys(names, "to do")
    begun = plan(**statuses)
    ended = [(0.0, finished(name)) for name in names[:7]]
    rows = after((0.0, begun), *ended, (0.0, StageStarted(stage="stage_7", unit="rows")))
    lines = shown(rows, height=6)
    assert len(lines) == 6
    assert lines[0] == "... 6 stages before"
    assert [line.split()[0] for line in lines[1:5]] == ["stage_6", "stage_7", "stage_8", "stage_9"]
    assert lines[5] == "... 2 stages after"
    assert len(shown(rows, height=None)) == 12
    assert [line.split()[0] for line in shown(rows, height=1)] == ["...", "stage_7", "..."]


@pytest.mark.parametrize(("status", "state"), [(1, "failed"), (2, "failed"), (130, "interrupted")])
def test_where_it_ended(status: int, state: str) -> None:
    rows = after(*UNDER_WAY, (120.0, Failed(message="x", status=status)))
    assert [row.state for row in rows] == ["done earlier", "done", state, "waiting"]
    line = next(line for line in shown(rows, now=500.0) if line.startswith("dpo"))
    assert line.split()[1:4] == [state, "0:40", "120/750"]


def test_a_stage_that_another_command_finished_meanwhile() -> None:
    rows = after((0.0, plan(prompts="to do")), (1.0, StageSkipped(stage="prompts")))
    assert shown(rows) == ["prompts  done earlier"]
