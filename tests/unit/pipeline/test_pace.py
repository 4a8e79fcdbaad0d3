"""Rate and time left of a stage."""

from __future__ import annotations

from zephyr_ray.pipeline.pace import Pace


def paced(*counts: tuple[float, int]) -> Pace:
    pace = Pace()
    for now, done in counts:
        pace.see(done, now)
    return pace


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
