"""Events as lines of JSON."""

from __future__ import annotations

import io
import json
import os

import pytest

from tests.unit.pipeline.test_progress_text import progress
from zephyr_ray.pipeline.event_lines import EventLines
from zephyr_ray.pipeline.events import Said, parse


def written(out: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_strict_json_in_ascii_and_names_the_run() -> None:
    out = io.StringIO()
    lines = EventLines(out)
    lines.show(Said(text="before the recipe is read"))
    lines.run = "s3://bucket/run"
    lines.show(Said(text="\x9b\u2028 two\nlines, \u00fc"))
    lines.show(progress(1, 9, metrics={"loss": float("nan"), "tokens": 3}))
    assert out.getvalue().isascii()
    assert all(parse(line) for line in out.getvalue().splitlines()[:2])

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = [json.loads(line, parse_constant=refuse) for line in out.getvalue().splitlines()]
    assert [event["run"] for event in found] == [None, "s3://bucket/run", "s3://bucket/run"]
    assert found[1]["text"] == "\\x9b\\u2028 two\nlines, \u00fc"
    assert found[2]["metrics"] == {"loss": None, "tokens": 3}
    assert found[0]["time"].endswith("Z")


def test_progress_that_says_nothing_new_is_not_repeated() -> None:
    out = io.StringIO()
    lines = EventLines(out)
    lost = {"loss": float("nan")}
    for rows, metrics, left in [
        (1, lost, 9.0),
        (1, lost, 8.0),
        (2, lost, 8.0),
        (2, {"loss": 0.5}, 7.0),
        (2, {"loss": 0.5}, 6.0),
    ]:
        lines.show(progress(rows, 9, metrics=metrics, seconds_left=left))
    assert [(event["rows"], event["seconds_left"]) for event in written(out)] == [(1, 9.0), (2, 8.0), (2, 7.0)]


def test_a_run_outlives_those_who_read_its_events(capsys: pytest.CaptureFixture[str]) -> None:
    reads, writes = os.pipe()
    lines = EventLines(os.fdopen(writes, "w", buffering=1))
    lines.show(Said(text="a"))
    os.close(reads)
    for text in "bc":
        lines.show(Said(text=text))
    assert capsys.readouterr().err == "nobody reads the events any more; the run goes on\n"
