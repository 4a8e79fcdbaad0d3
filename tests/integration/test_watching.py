"""`--json`: the events of a job, by the job as a user runs it, whatever its workers print."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TypeVar

import pytest

from tests.integration.jobs import REPO, command, log_tail
from zephyr_ray.pipeline import events
from zephyr_ray.pipeline.events import Event, Failed, Finished, Planned, Said, StageFinished, StageProgress

Kind = TypeVar("Kind")
SOURCE = json.dumps({"type": "function", "function": "tests.integration.chatter:preferences", "options": {"count": 40}})


def told(root: Path, *overrides: str, expect: int = 0, options: tuple[str, ...] = ()) -> tuple[list[Event], str]:
    """The events that a job tells, of which each line of its stdout is one, and what people read on stderr."""
    done = subprocess.run(
        command("preferences", root, *overrides, options=("--json", *options)),
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}\n{log_tail(root)}"
    found = [events.parse(line) for line in done.stdout.splitlines()]
    assert done.stdout.endswith("}\n")
    return found, done.stderr


def kinds(found: list[Event]) -> list[str]:
    """Their names, without those of progress, which come as often as it takes long, and of lines for people."""
    return [event.event for event in found if not isinstance(event, Said | StageProgress)]


def first(found: list[Event], kind: type[Kind]) -> Kind:
    return next(event for event in found if isinstance(event, kind))


@pytest.fixture(scope="module")
def overrides(overrides: tuple[str, ...]) -> tuple[str, ...]:
    return (*overrides, f"preferences.train={SOURCE}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched") / "run"


def test_a_failing_job_ends_with_an_error_and_its_status(root: Path, overrides: tuple[str, ...]) -> None:
    found, seen = told(root, *overrides, "preferences.max_dropped=0", expect=2)
    assert kinds(found) == ["plan", "stage_started", "error"]
    error = found[-1]
    assert isinstance(error, Failed)
    assert (error.stage, error.status, error.run) == ("preferences", 2, str(root))
    assert "1 of 41 rows dropped (1 identical_pair)" in error.message
    assert f"error: {error.message}\nlog: {error.log}\n" in seen
    assert "chatter" not in seen


def test_what_is_told_of_a_job(root: Path, overrides: tuple[str, ...]) -> None:
    found, seen = told(root, *overrides, options=("--overwrite", "preferences"))
    assert kinds(found) == ["plan", "stage_started", "stage_finished", "finished"]
    plan, made, end = first(found, Planned), first(found, StageFinished), first(found, Finished)
    *_, progress = (event for event in found if isinstance(event, StageProgress))
    (stage,) = plan.stages
    assert (stage.name, stage.status, stage.changed) == ("preferences", "stale", ("preferences.max_dropped",))
    assert (progress.stage, progress.rows, progress.unit) == ("preferences", 41, "rows")
    assert (made.counts, made.dropped) == ({"in": 41, "out": 40}, {"identical_pair": 1})
    *_, summary, report = (event.text for event in found if isinstance(event, Said))
    assert summary.startswith("preferences ")
    assert report == f"report: {root / 'report.html'}"
    assert end.log is not None
    assert "chatter of C" in Path(end.log).read_text()
    assert "chatter" not in seen
    assert "preferences            done in 0:" in seen


def test_what_is_told_where_nothing_is_to_do(root: Path, overrides: tuple[str, ...]) -> None:
    found, _ = told(root, *overrides)
    assert kinds(found) == ["plan", "stage_skipped", "finished"]
    found, seen = told(root, *overrides, options=("--dry-run",))
    assert kinds(found) == ["plan"]
    assert seen == ""


def test_an_error_before_any_work(tmp_path: Path) -> None:
    found, seen = told(tmp_path, "dpo.betta=1", expect=2)
    (error,) = found
    assert isinstance(error, Failed)
    assert (error.status, error.run, error.log) == (2, None, None)
    assert seen == f"error: {error.message}\n"
