"""The table of stages on a terminal, as a person sees it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from tests.unit.pipeline.terminal import Terminal
from tests.unit.pipeline.test_stage_table import TRAINING, finished, plan
from zephyr_ray.pipeline import live_table
from zephyr_ray.pipeline.events import Alarm, Failed, Finished, Said, StageSkipped, StageStarted
from zephyr_ray.pipeline.live_table import LiveTable


@pytest.fixture(autouse=True)
def _a_usual_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment of these tests, such as CI, says how a terminal is."""
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal() as terminal:
        yield terminal


def begun(terminal: Terminal) -> LiveTable:
    """A table that is redrawn when a test asks for it, of a run that trains."""
    table = LiveTable(terminal.console(), clock=lambda: 7.0)
    table.interval_s = 1e6
    table.show(plan(prompts="done", preferences="to do", dpo="to do", held_out="to do"))
    table.show(StageSkipped(stage="prompts"))
    table.show(StageStarted(stage="preferences", unit="rows"))
    table.show(finished("preferences", dropped=12))
    table.show(Said(stage="preferences", text="  1,000 rows in = 988 kept + 12 dropped"))
    table.show(StageStarted(stage="dpo", unit="steps"))
    table.show(TRAINING)
    table.redraw()
    return table


ABOVE = ["preferences            done in 1:15", "  1,000 rows in = 988 kept + 12 dropped"]
STAGES = [
    "prompts      done earlier",
    "preferences  done          1:15  988 rows  12 dropped",
    "dpo          running       0:00  120/750 steps  3.4/s  3:05 left  loss 1.25",
    "                           margin 0.1  accuracy 0.6  lr 0.0002",
    "held_out     waiting",
]


def test_all_stages_stand_below_what_is_said(terminal: Terminal) -> None:
    table = begun(terminal)
    assert terminal.screen() == [*ABOVE, *STAGES]
    assert terminal.cursor_is_hidden
    table.show(Alarm(stage="dpo", text="ALARM: the loss rose"))
    assert terminal.screen() == [*ABOVE, "ALARM: the loss rose", *STAGES]
    table.show(Said(text="a long line " * 20))
    assert terminal.screen()[-len(STAGES) :] == STAGES
    assert terminal.screen().count(STAGES[0]) == 1
    table.close()


def test_more_lines_than_a_screen_has_go_to_the_scrollback_and_the_table_stays(terminal: Terminal) -> None:
    table = begun(terminal)
    for number in range(40):
        table.show(Said(text=f"line {number}"))
    assert terminal.screen()[-6:] == ["line 39", *STAGES]
    assert terminal.everything() == [*ABOVE, *(f"line {number}" for number in range(40)), *STAGES]
    table.close()


def test_nothing_is_written_where_nothing_looks_different(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    table = begun(terminal)
    before = terminal.screen()
    monkeypatch.setattr(table.console, "print", lambda *given: pytest.fail("it was redrawn"))
    table.show(TRAINING)
    table.redraw()
    monkeypatch.undo()
    assert terminal.screen() == before
    table.close()


def test_a_terminal_that_is_resized(terminal: Terminal) -> None:
    table = begun(terminal)
    terminal.resize(40, 24)
    table.redraw()
    narrow = [
        *ABOVE,
        "prompts      done earlier",
        "preferences  done",
        "  1:15  988 rows  12 dropped",
        "dpo          running",
        "  0:00  120/750 steps  3.4/s  3:05 left",
        "  loss 1.25  margin 0.1  accuracy 0.6",
        "  lr 0.0002",
        "held_out     waiting",
    ]
    assert [line for line in terminal.screen() if line] == narrow
    terminal.resize(80, 24)
    table.redraw()
    assert [line for line in terminal.screen() if line] == [*ABOVE, *STAGES]
    terminal.resize(80, 4)
    table.redraw()
    assert terminal.screen()[-3:] == [*STAGES[2:4], "... 1 stage after"]
    table.close()


def test_after_the_last_stage_the_table_stays_and_the_result_stands_below(terminal: Terminal) -> None:
    table = begun(terminal)
    table.show(finished("dpo", 80.0))
    table.show(StageSkipped(stage="held_out"))
    assert not (terminal.screen() and terminal.cursor_is_hidden)
    table.show(Said(text="chat with it: ..."))
    table.show(Finished(seconds=155.0, log="run/logs/x.log"))
    assert terminal.screen() == [
        *ABOVE,
        *STAGES[:2],
        "dpo          done          1:20  1,000 rows  loss 1.25  margin 0.1",
        "                           accuracy 0.6",
        "held_out     done earlier",
        "chat with it: ...",
        "finished in 155 s; log: run/logs/x.log",
        "",
    ]


@pytest.mark.parametrize("rows", [24, 4])
def test_after_an_interruption_the_whole_table_stays_and_one_line_says_so(rows: int) -> None:
    with Terminal(80, rows) as terminal:
        table = begun(terminal)
        table.show(Failed(message="interrupted; the same command goes on from here", status=130, log="run/logs/x.log"))
        table.close()
        assert terminal.everything() == [
            *ABOVE,
            *STAGES[:2],
            "dpo          interrupted   0:00  120/750 steps  loss 1.25  margin 0.1",
            "                           accuracy 0.6",
            "held_out     waiting",
            "interrupted; the same command goes on from here",
            "log: run/logs/x.log",
            "",
        ]
        assert not terminal.cursor_is_hidden


def test_what_a_server_says_drives_no_terminal(terminal: Terminal) -> None:
    table = begun(terminal)
    table.show(Said(text="the server says: \x1b[2J\x1b]0;owned\x07\r"))
    assert r"the server says: \x1b[2J\x1b]0;owned\x07\r" in terminal.screen()
    table.close()


def test_a_terminal_that_does_not_know_its_size() -> None:
    with Terminal() as terminal:
        terminal.tell_size(0, 0)
        table = begun(terminal)
        assert (table.console.width, table.console.height) == (80, 24)
        table.close()


@pytest.mark.parametrize(
    ("variable", "value", "is_live"),
    [
        ("TERM", "xterm-256color", True),
        ("TERM", "dumb", False),
        ("TERM", "", False),
        ("CI", "true", False),
        ("CI", "1", False),
        ("CI", "false", True),
        ("NO_COLOR", "1", True),
    ],
)
def test_where_a_table_suits(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, is_live: bool
) -> None:
    monkeypatch.setenv(variable, value)
    assert live_table.suits(Console(file=terminal.stream)) is is_live


def test_a_file_is_no_terminal_whatever_forces_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not live_table.suits(Console(file=io.StringIO()))


def test_without_colours(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = terminal.console()
    with console.capture() as captured:
        console.print("red", style="red")
    assert captured.get() == "red\n"
