"""The progress line a person sees."""

import time

from zephyr_ray.terminal import _clock, _progress_line


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
