"""Killed at any point, the same command ends with the same weights, and every pair was trained on exactly once."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from tests.integration.jobs import copy_run, kill_and_finish, manifest, metrics, run_job

pytestmark = pytest.mark.timeout(900)


def checkpoints(root: Path) -> int:
    """How many checkpoints Ray Train has registered for all drivers so far (of which it keeps each driver's last)."""
    count = 0
    for state in (root / "dpo" / "training_state").glob("*/checkpoint_manager_snapshot.json"):
        try:
            count += int(json.loads(state.read_text())["current_report_index"])
        except ValueError:  # being written
            continue
    return count


def has_checkpoints(root: Path, count: int) -> Callable[[], bool]:
    """Whether there are so many of them."""
    return lambda: checkpoints(root) >= count


def largest_difference(a: Path, b: Path) -> float:
    left, right = (load_file(root / "dpo" / "checkpoint" / "model.safetensors") for root in (a, b))
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def test_training_changed_the_weights(undisturbed: Path, base_model: Path) -> None:
    before = load_file(base_model / "model.safetensors")
    after = load_file(undisturbed / "dpo" / "checkpoint" / "model.safetensors")
    assert max(float((before[name] - after[name]).abs().max()) for name in after) > 1e-3


def test_a_lost_worker_is_replaced(
    undisturbed: Path, prepared: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    root = copy_run(prepared, tmp_path / "run")
    status, seen = kill_and_finish("dpo", root, *overrides, when=has_checkpoints(root, 2), victim="RayTrainWorker")
    assert status == 0, seen
    assert largest_difference(undisturbed, root) <= 1e-6
    assert _losses(root) == pytest.approx(_losses(undisturbed), abs=1e-6)
    pairs = manifest(root, "tokenized")["counts"]["out"]
    assert manifest(root, "dpo")["trained"] == {"rows": pairs, "fewest_times": 2, "most_times": 2}


INTERRUPTED = "interrupted; the same command goes on from here"


@pytest.fixture(scope="module")
def killed(prepared: Path, overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose driver was killed in its training, with all that came of it."""
    root = copy_run(prepared, tmp_path_factory.mktemp("killed") / "run")
    status, seen = kill_and_finish("dpo", root, *overrides, when=has_checkpoints(root, 2), with_children=True)
    assert (status, INTERRUPTED in seen) == (-signal.SIGKILL, False), seen
    assert not (root / "dpo" / "manifest.json").exists()
    return root


def test_a_lost_driver_resumes(undisturbed: Path, killed: Path, overrides: tuple[str, ...], tmp_path: Path) -> None:
    root = copy_run(killed, tmp_path / "run")
    more = has_checkpoints(root, checkpoints(root) + 1)
    status, seen = kill_and_finish("dpo", root, *overrides, when=more, sent=signal.SIGINT)
    assert (status, INTERRUPTED in seen, "resuming" in seen) == (130, True, True), seen
    assert not (root / "dpo" / "manifest.json").exists()
    assert "resuming" in run_job("dpo", root, *overrides)
    assert largest_difference(undisturbed, root) <= 1e-6
    assert _losses(root) == pytest.approx(_losses(undisturbed), abs=1e-6)


def test_two_workers_resume_as_four(
    undisturbed: Path, killed: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    root = copy_run(killed, tmp_path / "run")
    assert "resuming" in run_job("dpo", root, *overrides, "dpo.training.workers=4")
    is_the_undisturbed_run(root, undisturbed)


def test_groups_on_two_workers_that_are_lost_train_as_one_does(overrides: tuple[str, ...], tmp_path: Path) -> None:
    """A prompt and all of its completions at once, by the jobs that a user runs."""
    every_pair = (*overrides, "preferences.rejected=every_pair", "dpo.best_nll=0.1", "dpo.epochs=1")
    alone = tmp_path / "alone"
    run_job("dpo", alone, *every_pair, "dpo.training.workers=1", "dpo.training.zero_stage=0")
    root = copy_run(alone, tmp_path / "run", "dpo")
    status, seen = kill_and_finish("dpo", root, *every_pair, when=has_checkpoints(root, 2), victim="RayTrainWorker")
    assert status == 0, seen
    groups, pairs = (manifest(alone, stage) for stage in ("tokenized_groups", "tokenized"))
    assert groups["noted"]["pairs"] == pairs["counts"]["out"] > 3 * groups["counts"]["out"]
    trained = {"rows": groups["counts"]["out"], "fewest_times": 1, "most_times": 1}
    assert manifest(root, "dpo")["trained"] == manifest(alone, "dpo")["trained"] == trained
    assert _losses(root) == pytest.approx(_losses(alone), abs=1e-5)
    assert largest_difference(alone, root) <= 1e-5


def test_reference_logps_repeat_only_what_was_in_flight(
    prepared: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    slow = (*overrides, "reference_logps.batch_size=1")
    root = copy_run(prepared, tmp_path / "run", "reference_logps")
    data = root / "reference_logps" / "data"
    status, _ = kill_and_finish(
        "reference_logps", root, *slow, when=lambda: data.exists() and len(list(data.glob("*.parquet"))) >= 20
    )
    assert status == -9
    kept = {path.name: path.stat().st_mtime_ns for path in data.glob("*.parquet")}
    seen = run_job("reference_logps", root, *slow)
    assert "resuming" in seen
    after = {path.name: path.stat().st_mtime_ns for path in data.glob("*.parquet")}
    survived = [name for name in kept if after.get(name) == kept[name]]
    assert len(survived) == len(kept)  # a file is there with all of its rows, or not at all
    rows = pq.read_table(data)["pair_id"].to_pylist()
    tokenized = pq.read_table(root / "tokenized" / "data")["pair_id"].to_pylist()
    assert sorted(rows) == sorted(tokenized)


def is_the_undisturbed_run(root: Path, undisturbed: Path) -> None:
    """With another number of workers for a part of it: to 1e-5."""
    assert _losses(root) == pytest.approx(_losses(undisturbed), abs=1e-5)
    assert largest_difference(undisturbed, root) <= 1e-5
    pairs = manifest(root, "tokenized")["counts"]["out"]
    assert manifest(root, "dpo")["trained"] == {"rows": pairs, "fewest_times": 2, "most_times": 2}


def _losses(root: Path) -> list[float]:
    return [row["loss"] for row in metrics(root, "dpo")]
