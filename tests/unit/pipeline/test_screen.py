"""The progress line a person sees."""

import io
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from zephyr_ray.pipeline import screen
from zephyr_ray.pipeline.pace import Pace
from zephyr_ray.pipeline.screen import Screen, _clock, _progress_line


def state(done: int, total: int | None, **metrics: float) -> dict:
    return {"done": done, "total": total, "metrics": metrics}


def paced(*counts: tuple[float, int]) -> Pace:
    pace = Pace()
    for now, done in counts:
        pace.see(done, now)
    return pace


def test_before_the_first_report() -> None:
    assert _progress_line(state(0, None), "rows", Pace(), 5.0) == "starting"
    assert _progress_line(state(3, 9), "rows", paced((0, 0), (5, 3)), 6.0) == "3/9 rows"


def test_rate_and_time_left() -> None:
    line = _progress_line(state(120, 1220, loss=0.6931), "steps", paced((0, 20), (10, 120)), 10.0)
    assert line == "120/1,220 steps  10.0/s  1:50 left  loss 0.6931"


def test_without_a_total_there_is_no_time_left() -> None:
    assert _progress_line(state(1500, None), "rows", paced((0, 500), (10, 1500)), 10.0) == "1,500 rows  100.0/s"


def test_the_time_left_does_not_grow_while_nothing_moves() -> None:
    pace = paced((0, 1), (60, 2), (120, 3))
    left = [pace.left_s(5, 120 + seconds) for seconds in (0, 30, 60, 90, 600)]
    assert left == [120, 90, 60, 60, 60]  # a step that takes longer leaves the other one
    for seconds in range(0, 600, 10):
        pace.see(3, 120 + seconds)
    assert pace.rate == 1 / 60


def test_a_count_that_falls_begins_anew() -> None:
    pace = paced((0, 1), (10, 11), (20, 5))
    assert pace.rate is None
    pace.see(7, 21)
    assert pace.rate == 2


def test_a_line_that_says_nothing_new_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "_PLAIN_INTERVAL_S", 0.01)
    seen = iter([state(0, 4), state(0, 4), state(1, 4), state(1, 4), state(2, 4), state(2, 4, loss=0.5)])
    stop, out = threading.Event(), io.StringIO()

    class Reports:
        def read(self) -> dict:
            found = next(seen, None)
            if found is None:
                stop.set()
            return found or state(2, 4, loss=0.5)

    Screen(Console(file=out))._print_lines("sft", "steps", Reports(), stop)  # type: ignore[arg-type]
    lines = [line.split()[1] for line in out.getvalue().splitlines()]
    assert lines == ["starting", "1/4", "2/4", "2/4"]


def test_clock() -> None:
    assert [_clock(seconds) for seconds in (0.4, 59.6, 600)] == ["0:00", "1:00", "10:00"]


STAGE = """
import sys, threading, time
from zephyr_ray.pipeline.screen import on_terminal

class Progress:
    def read(self):
        return {"done": 3, "total": 8, "metrics": {"loss": 0.5}, "failure": None}

terminal, stop = on_terminal(sys.argv[1]), threading.Event()
terminal.plan(["sft", "dpo"])
drawing = threading.Thread(target=terminal._draw, args=("sft", "steps", Progress(), stop))
drawing.start()
time.sleep(0.7)
print("chatter of a worker")
time.sleep(0.7)
stop.set()
drawing.join()
terminal.say("the end")
"""


def test_a_live_screen_shows_the_way_and_nothing_that_is_printed(tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    log = tmp_path / "log"
    subprocess.run(
        [sys.executable, "-c", STAGE, str(log)],
        stdout=terminal,
        stderr=terminal,
        env=environment,
        timeout=60,
        check=True,
    )
    os.close(terminal)
    seen = b""
    try:
        while part := os.read(master, 65536):
            seen += part
    except OSError:  # the other side is closed and all is read
        os.close(master)
    assert b"3/8 steps" in seen
    assert b"to do" in seen
    assert b"the end" in seen
    assert b"chatter" not in seen
    assert "chatter of a worker" in log.read_text()
