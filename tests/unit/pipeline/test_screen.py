"""The progress line a person sees."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

from zephyr_ray.pipeline.screen import _clock, _progress_line


def state(done: int, total: int | None, **metrics: float) -> dict:
    return {"done": done, "total": total, "metrics": metrics}


def test_before_the_first_report() -> None:
    assert _progress_line(state(0, None), "rows", None) == "starting"


def test_rate_and_time_left() -> None:
    first = (time.monotonic() - 10, 20)
    line = _progress_line(state(120, 1220, loss=0.6931), "steps", first)
    assert line == "120/1,220 steps  10.0/s  1:50 left  loss 0.6931"


def test_without_a_total_there_is_no_time_left() -> None:
    assert _progress_line(state(1500, None), "rows", (time.monotonic() - 10, 500)) == "1,500 rows  100.0/s"


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
    screen, terminal = pty.openpty()
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
        while part := os.read(screen, 65536):
            seen += part
    except OSError:  # the other side is closed and all is read
        os.close(screen)
    assert b"3/8 steps" in seen
    assert b"to do" in seen
    assert b"the end" in seen
    assert b"chatter" not in seen
    assert "chatter of a worker" in log.read_text()
