"""What happens in a run is passed to views, and nothing else gets to a command's output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pipeline.terminal import Terminal
from tests.unit.pipeline.test_stage_table import finished
from zephyr_ray.pipeline import screen as screens
from zephyr_ray.pipeline.events import Event, Said, StageProgress, StageStarted
from zephyr_ray.pipeline.screen import Screen


class Kept:
    """A view that keeps what it is shown."""

    interval_s = 0.01

    def __init__(self) -> None:
        self.shown: list[Event] = []
        self.polled = threading.Event()

    def show(self, event: Event) -> None:
        self.shown.append(event)
        if isinstance(event, StageProgress) and event.rows:
            self.polled.set()

    def close(self) -> None:
        pass


class Board:
    """What workers have reported so far."""

    state: dict[str, Any]

    def __init__(self, board: Any, stage: str):
        self.state = {"done": 0, "total": 8, "metrics": {}, "failure": None}
        Board.last = self

    last: Board

    def read(self) -> dict[str, Any]:
        return self.state


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(screens, "start_board", object)
    monkeypatch.setattr(screens, "Progress", Board)
    return Kept()


def test_what_is_said_while_a_stage_runs_is_about_it(view: Kept) -> None:
    screen = Screen([view])
    screen.say("first")
    screen.tell(StageStarted(stage="dpo", unit="steps"))
    screen.say("a line")
    screen.tell(finished("dpo"))
    screen.say("a report")
    screen.tell(Said(stage="sft", text="another's"))
    assert [event.stage for event in view.shown] == [None, "dpo", "dpo", "dpo", None, "sft"]


def test_progress_is_read_while_a_stage_runs_and_at_its_end(view: Kept) -> None:
    screen = Screen([view])
    with screen.watched("dpo", "steps"):
        Board.last.state = {"done": 3, "total": 8, "metrics": {"loss": 0.5}, "failure": None}
        assert view.polled.wait(20)
        Board.last.state = {"done": 8, "total": 8, "metrics": {"loss": 0.25}, "failure": None}
    seen = [event for event in view.shown if isinstance(event, StageProgress)]
    assert (3, 8, "steps", {"loss": 0.5}) in [(each.rows, each.total, each.unit, each.metrics) for each in seen]
    assert (seen[-1].rows, seen[-1].metrics, seen[-1].seconds_left) == (8, {"loss": 0.25}, 0.0)


def test_a_stage_that_fails_is_not_asked_again(view: Kept) -> None:
    screen = Screen([view])

    def fail() -> None:
        with screen.watched("dpo", "steps"):
            Board.last.read = lambda: pytest.fail("the cluster may be gone")  # type: ignore[method-assign]
            raise KeyboardInterrupt

    view.interval_s = 1e6
    with pytest.raises(KeyboardInterrupt):
        fail()


COMMAND = """
import os, subprocess, sys
from zephyr_ray.pipeline import screen as screens
from zephyr_ray.pipeline.event_lines import EventLines
from zephyr_ray.pipeline.events import Finished, Planned, PlannedStage, StageStarted
from zephyr_ray.pipeline.streams import claim_stdout

events = EventLines(claim_stdout()) if "--json" in sys.argv else None
print("early chatter", flush=True)
screen = screens.of_command(sys.argv[1], events)
chatter = "os.write(1, b'chatter of a child\\\\n'); os.write(2, b'its errors\\\\n')"
to_do = {"unit": "steps", "reads": (), "status": "to do", "changed": ()}
screen.tell(Planned(stages=[PlannedStage(name=name, **to_do) for name in ("sft", "dpo")]))
screen.tell(StageStarted(stage="sft", unit="steps"))
print("chatter of a library", flush=True)
os.write(1, b"chatter of C\\n")
subprocess.run([sys.executable, "-c", f"import os; {chatter}"], check=True)
screen.say("a line for a person")
screen.tell(Finished(seconds=1.0))
screen.close()
print("late chatter", flush=True)
"""
CHATTER = ["chatter of C", "chatter of a library", "chatter of a child", "its errors", "late chatter"]


def test_stdout_is_the_events_alone_whatever_else_prints(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(log), "--json"], capture_output=True, text=True, timeout=60, check=True
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["plan", "stage_started", "log", "finished"]
    assert done.stderr.splitlines() == ["early chatter", "a line for a person", "finished in 1 s"]
    assert [line for line in CHATTER if line not in log.read_text()] == []


def test_a_terminal_shows_the_run_and_nothing_that_is_printed(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    with Terminal(60, 20) as terminal:
        environment = {name: value for name, value in os.environ.items() if name not in ("CI", "COLUMNS", "LINES")}
        subprocess.run(
            [sys.executable, "-c", COMMAND, str(log)],
            stdout=terminal.stream,
            stderr=terminal.stream,
            env={**environment, "TERM": "xterm"},
            timeout=60,
            check=True,
        )
        seen = terminal.screen()
        assert not terminal.cursor_is_hidden
    assert seen == [
        "early chatter",
        "a line for a person",
        "sft  running       0:00  starting",
        "dpo  waiting",
        "finished in 1 s",
        "",
    ]
    assert [line for line in CHATTER if line not in log.read_text()] == []
