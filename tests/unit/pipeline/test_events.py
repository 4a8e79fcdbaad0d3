"""What the runner tells of a run, and its form."""

from __future__ import annotations

import re
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any, get_args

import pydantic
import pytest

from tests.unit.pipeline.quiet import Quiet, without_a_cluster
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import events, runner
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.events import Alarm, Cost, Failed, PlannedStage, Said, StageProgress
from zephyr_ray.pipeline.stage import Stage, StageContext

REPO = Path(__file__).parents[3]
ASKED = {"requests": 8, "prompt_tokens": 120, "tokens": 64, "usd": 0.5}
LINES = ["10 rows in = 7 kept + 3 dropped", "ALARM: it rose"]


def told(root: Path, *, fails: bool = False) -> list[events.Event]:
    """What a screen is told while two stages are brought up to date."""

    def judge(context: StageContext) -> dict[str, Any]:
        counts = {"in": 10, "out": 7, "dropped": {"request_failed": 3}}
        return {"files": [], "counts": counts, "asked": ASKED, "lines": LINES, "alarms": LINES[1:]}

    def choose(context: StageContext) -> dict[str, Any]:
        if fails:
            raise UserError("it cannot be")
        return {"files": []}

    judgments = Stage("judgments", "rows", {}, judge)
    preferences = Stage("preferences", "rows", {}, choose, inputs={"judgments": judgments})
    screen = Quiet()
    plan = runner.plan(Run(str(root)), [judgments, preferences])
    try:
        runner.bring_up_to_date(plan, screen, runner.Consent(lease=False))
    except UserError as error:
        screen.tell(Failed(message=str(error), status=2))
    return screen.told


def kinds(found: list[events.Event]) -> list[tuple[str, str | None]]:
    return [(event.event, event.stage) for event in found]


def test_what_is_told_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_cluster(monkeypatch)
    first = told(tmp_path, fails=True)
    assert kinds(first) == [
        ("plan", None),
        ("stage_started", "judgments"),
        ("stage_finished", "judgments"),
        ("log", "judgments"),
        ("alarm", "judgments"),
        ("stage_started", "preferences"),
        ("error", None),
    ]
    planned, _, finished, line, alarm, _, error = first
    assert isinstance(planned, events.Planned)
    assert planned.stages == (
        PlannedStage(name="judgments", unit="rows", reads=(), status="to do", changed=()),
        PlannedStage(name="preferences", unit="rows", reads=("judgments",), status="to do", changed=()),
    )
    assert isinstance(finished, events.StageFinished)
    assert (finished.counts, finished.dropped) == ({"in": 10, "out": 7}, {"request_failed": 3})
    assert finished.cost == Cost(requests=8, prompt_tokens=120, tokens=64, usd=0.5)
    assert isinstance(line, Said)
    assert isinstance(alarm, Alarm)
    assert (line.text, alarm.text) == tuple(f"  {text}" for text in LINES)
    assert isinstance(error, Failed)

    second = told(tmp_path)
    assert kinds(second) == [
        ("plan", None),
        ("stage_skipped", "judgments"),
        ("alarm", "judgments"),
        ("stage_started", "preferences"),
        ("log", None),  # that it resumes
        ("stage_finished", "preferences"),
    ]
    assert isinstance(second[0], events.Planned)
    assert [stage.status for stage in second[0].stages] == ["done", "unfinished"]
    assert kinds(told(tmp_path))[:4] == [*kinds(second)[:3], ("stage_skipped", "preferences")]
    for event in (*first, *second):
        assert events.parse(event.model_dump_json(ensure_ascii=True)) == event
        assert event.time.utcoffset() == timedelta(0)
        assert event.time.tzinfo is UTC


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "log", "time": "2026-01-01T00:00:00Z", "run": null, "stage": null, "text": "a", "more": 1}',
        '{"event": "log", "time": "2026-01-01T00:00:00Z", "run": null, "stage": null}',
        '{"event": "log", "time": "2026-01-01T00:00:00", "run": null, "stage": null, "text": "a"}',
        '{"event": "gossip", "time": "2026-01-01T00:00:00Z", "run": null, "stage": null, "text": "a"}',
        "chatter",
    ],
)
def test_what_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        events.parse(line)


def test_all_text_of_an_event_is_printable() -> None:
    said = Said(text="\x1b[31m\ud800", stage="a\rb")
    assert (said.text, said.stage) == (r"\x1b[31m\ud800", r"a\rb")
    shown = StageProgress(stage="x", rows=1, total=None, unit="\x07", rate=None, seconds_left=None, metrics={"\x9b": 1})
    assert (shown.unit, list(shown.metrics)) == (r"\x07", [r"\x9b"])


def rows_of_the_guide(header: str) -> list[list[str]]:
    text = (REPO / "docs" / "watching.md").read_text()
    lines = text[text.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_guide_has_every_field_of_every_event() -> None:
    """In the order in which they are written."""
    of_all = list(events._Event.model_fields)
    assert [re.findall(r"^`(\w+)`", name) for name, _ in rows_of_the_guide("| field of every event |")] == [
        [name] for name in of_all
    ]
    rows = {name.strip("`"): fields for name, _, fields in rows_of_the_guide("| event | when |")}
    kinds = {kind.model_fields["event"].default: kind for kind in get_args(events.Event)}
    assert {name: re.findall(r"`(\w+)`:", fields) for name, fields in rows.items()} == {
        name: [field for field in kind.model_fields if field not in of_all] for name, kind in kinds.items()
    }
    for event, part in (("plan", PlannedStage), ("stage_finished", Cost)):
        assert [field for field in part.model_fields if f"`{field}`" not in rows[event]] == []
