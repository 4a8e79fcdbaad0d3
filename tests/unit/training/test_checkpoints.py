"""Checkpoints go to their place while training goes on, and never more than one lies on the worker's disk."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.train import RunConfig, ScalingConfig
from ray.train.v2._internal.execution.storage import StorageContext
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from zephyr_ray.training.callbacks import ReportCheckpoint, restore_seen, wait_until_stored


@pytest.mark.usefixtures("ray_cluster")
def test_training_goes_on_while_one_checkpoint_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a worker whose store waits until it is told to go on."""
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")  # of 2: a checkpoint is registered at one
    local, go_on = tmp_path / "local", tmp_path / "go_on"

    def train(config: dict[str, Any]) -> None:
        store = StorageContext.persist_current_checkpoint

        def store_later(*arguments: Any) -> Any:
            while not go_on.exists():
                time.sleep(0.05)
            return store(*arguments)

        StorageContext.persist_current_checkpoint = store_later  # type: ignore[assignment, method-assign]
        report = ReportCheckpoint(SimpleNamespace(seen=np.array([1, 2])))
        args, control = SimpleNamespace(output_dir=str(local), process_index=0), SimpleNamespace(should_save=True)

        def checkpoint(step: int) -> Path:
            report.on_step_end(args, SimpleNamespace(global_step=step), control)
            folder = local / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "weights").write_text(f"{step}")
            report.on_save(args, SimpleNamespace(global_step=step), control)
            return folder

        first = checkpoint(1)
        assert first.exists()  # training goes on
        threading.Timer(0.5, go_on.touch).start()
        checkpoint(2)
        assert go_on.exists()  # it was waited for
        assert not first.exists()
        wait_until_stored()
        assert not os.listdir(local)

    result = DataParallelTrainer(
        train,
        train_loop_config={},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="state", storage_path=str(tmp_path / "stored")),
    ).fit()
    assert result.metrics == {"step": 2}
    assert result.checkpoint is not None
    with result.checkpoint.as_directory() as folder:
        assert restore_seen(folder, 0, 2).tolist() == [1, 2]
        assert (Path(folder) / "weights").read_text() == "2"
