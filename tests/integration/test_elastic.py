"""A training whose node goes is gone on with by fewer workers, and ends with the weights of the undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.cluster import Head, drain, head, node
from tests.integration.jobs import REPO, command, copy_run, forked_by, log_tail
from tests.integration.test_resume import has_checkpoints, is_the_undisturbed_run
from zephyr_ray.cluster import fork_server

pytestmark = pytest.mark.timeout(600)
Until = Callable[[Callable[[], bool]], None]
"""Waits until something is true, while the job runs."""


@pytest.mark.soak  # the next test's node dies too
def test_a_lost_node_leaves_fewer_workers_that_go_on(
    undisturbed: Path, prepared: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """It dies without a word, as a machine does."""
    root = copy_run(prepared, tmp_path / "run")
    job = command("dpo", root, *overrides, "dpo.training.workers=[1, 2]")
    log = _lose_a_node(job, root, lambda cluster, until: until(has_checkpoints(root, 3)))
    assert "worker group of size 2" in log
    assert "worker group of size 1" in log
    is_the_undisturbed_run(root, undisturbed)


def test_a_node_that_is_about_to_go_brings_a_checkpoint(
    undisturbed: Path, prepared: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """The node is drained, as before its pod ends: the only checkpoint is the one that this brings."""
    root = copy_run(prepared, tmp_path / "run")
    job = command("dpo", root, *overrides, "dpo.training.workers=[1, 2]", "dpo.training.checkpoint_steps=1000")

    def notice(cluster: Head, until: Until) -> None:
        until((root / "dpo" / "tensorboard").exists)
        drain(cluster, seconds=20)
        until(has_checkpoints(root, 1))

    log = _lose_a_node(job, root, notice)
    assert "worker group of size 2" in log
    assert "a node is about to go: checkpoint at step" in log
    assert "worker group of size 1" in log
    is_the_undisturbed_run(root, undisturbed)


def _lose_a_node(job: list[str], root: Path, when: Callable[[Head, Until], None]) -> str:
    """Runs a job on two nodes with room for a worker each; one dies when `when` returns. The job's log."""
    folder = root.parent
    # Ray Train's view of the cluster is up to 20 s old: it first asks in vain for as many workers as there were.
    soon = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "8"}
    soon |= {f"RAY_TRAIN_{name}_INTERVAL_S": "0.25" for name in ("HEALTH_CHECK", "PREEMPTION_POLL")}
    with head(folder, soon, cpus=1) as cluster, (folder / "seen").open("w+") as seen:
        variables = {**os.environ, **cluster.environment, "RAY_ADDRESS": cluster.gcs}
        job_config = {"runtime_env": forked_by(os.environ[fork_server.VARIABLE])}
        variables["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps(job_config)  # as a submitted job is told of its own
        with node(cluster, folder, cpus=1):
            process = subprocess.Popen(job, env=variables, stdout=seen, stderr=subprocess.STDOUT, cwd=REPO)

            def until(true: Callable[[], bool]) -> None:
                while not true():
                    assert process.poll() is None, (folder / "seen").read_text() + log_tail(root)
                    time.sleep(0.05)

            when(cluster, until)
        assert process.wait(timeout=300) == 0, (folder / "seen").read_text() + log_tail(root)
    return max((root / "logs").glob("dpo-*.log")).read_text(errors="replace")
