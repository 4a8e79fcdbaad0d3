"""Another number of workers goes on with exactly what is left, and ends with the weights of the undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.cluster import drain, head, node
from tests.integration.jobs import REPO, command, copy_run, kill_and_finish, log_tail, manifest, metrics, run_job
from tests.integration.test_resume import has_checkpoints, largest_difference

pytestmark = pytest.mark.timeout(600)


def test_a_run_of_two_workers_resumes_with_four(
    undisturbed: Path, prepared: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    root = copy_run(prepared, tmp_path / "run")
    status, seen = kill_and_finish("dpo", root, *overrides, when=has_checkpoints(root, 3), sent=signal.SIGKILL)
    assert status == -9, seen
    assert "resuming" in run_job("dpo", root, *overrides, "dpo.training.workers=4")
    _is_the_undisturbed_run(root, undisturbed)


def test_a_lost_node_leaves_fewer_workers_that_go_on(
    undisturbed: Path, prepared: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """Two nodes with room for a worker each; the second one dies in mid-training."""
    root = copy_run(prepared, tmp_path / "run")
    # Ray Train's view of the cluster is up to 20 s old: it first asks in vain for as many workers as there were.
    soon = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "8", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25"}
    job = command("dpo", root, *overrides, "dpo.training.workers=[1, 2]")
    with head(tmp_path, soon, cpus=1) as started, (tmp_path / "seen").open("w+") as seen:
        variables = {**os.environ, **started.environment, "RAY_ADDRESS": started.gcs}
        with node(started, tmp_path, cpus=1):
            process = subprocess.Popen(job, env=variables, stdout=seen, stderr=subprocess.STDOUT, cwd=REPO)
            checkpointed = has_checkpoints(root, 3)
            while not checkpointed():
                assert process.poll() is None, (tmp_path / "seen").read_text() + log_tail(root)
                time.sleep(0.05)
        assert process.wait(timeout=300) == 0, (tmp_path / "seen").read_text() + log_tail(root)
    log = max((root / "logs").glob("dpo-*.log")).read_text(errors="replace")
    assert "worker group of size 2" in log
    assert "worker group of size 1" in log
    _is_the_undisturbed_run(root, undisturbed)


def test_a_node_that_is_about_to_go_costs_no_step(
    undisturbed: Path, prepared: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """The node of a worker is drained, as before its pod ends: the only checkpoint is the one that this brings."""
    root = copy_run(prepared, tmp_path / "run")
    soon = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "8", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25"}
    soon["RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S"] = "0.25"
    job = command("dpo", root, *overrides, "dpo.training.workers=[1, 2]", "dpo.training.checkpoint_steps=1000")
    with head(tmp_path, soon, cpus=1) as started, (tmp_path / "seen").open("w+") as seen:
        variables = {**os.environ, **started.environment, "RAY_ADDRESS": started.gcs}
        with node(started, tmp_path, cpus=1):
            process = subprocess.Popen(job, env=variables, stdout=seen, stderr=subprocess.STDOUT, cwd=REPO)
            trained, kept = (root / "dpo" / "tensorboard").exists, has_checkpoints(root, 1)
            while not trained():
                assert process.poll() is None, (tmp_path / "seen").read_text() + log_tail(root)
                time.sleep(0.05)
            drain(started, seconds=20)
            while not kept():
                assert process.poll() is None, (tmp_path / "seen").read_text() + log_tail(root)
                time.sleep(0.05)
        assert process.wait(timeout=300) == 0, (tmp_path / "seen").read_text() + log_tail(root)
    log = max((root / "logs").glob("dpo-*.log")).read_text(errors="replace")
    assert "a node is about to go: checkpoint at step" in log
    assert "worker group of size 1" in log
    _is_the_undisturbed_run(root, undisturbed)


def _is_the_undisturbed_run(root: Path, undisturbed: Path) -> None:
    losses, expected = ([row["loss"] for row in metrics(each, "dpo")] for each in (root, undisturbed))
    assert losses == pytest.approx(expected, abs=1e-5)
    assert largest_difference(undisturbed, root) <= 1e-5
    pairs = manifest(root, "tokenized")["counts"]["out"]
    assert manifest(root, "dpo")["trained"] == {"rows": pairs, "fewest_times": 2, "most_times": 2}
