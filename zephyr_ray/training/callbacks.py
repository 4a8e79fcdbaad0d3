"""What happens during training beside training: checkpoints to Ray Train, progress and pace."""

from __future__ import annotations

import logging
import os
import posixpath
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.fs as pafs
import ray.train
import ray.train.collective
import torch
from transformers import TrainerCallback

from zephyr_ray.training.trackers import FOLDERS
from zephyr_ray.training.trl_trainers import PlannedMixin

if TYPE_CHECKING:
    from zephyr_ray.pipeline.artifacts import Artifact
    from zephyr_ray.training.task import TrainJob

logger = logging.getLogger(__name__)


class ReportCheckpoint(TrainerCallback):
    """Hands each of the trainer's checkpoints to Ray Train, which stores it while training goes on, deletes the local
    copy, and registers it once every rank's part is stored.

    A checkpoint waits for the one before it: never does more than one lie on the worker's disk. Goes after the
    callbacks that ask for a checkpoint.
    """

    def __init__(self, trainer: PlannedMixin):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.compute_steps(args, state.max_steps)  # how often, by the recipe of now: the state may be a checkpoint's

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_save:
            wait_until_stored()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
        np.save(os.path.join(folder, f"seen_{args.process_index}.npy"), self.trainer.seen)
        ray.train.report(
            {"step": state.global_step},
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
        )


def wait_until_stored() -> None:
    """Waits until the last checkpoint of all ranks is stored and registered."""
    ray.train.get_all_reported_checkpoints(consistency_mode=ray.train.CheckpointConsistencyMode.COMMITTED)


class CheckpointByTime(TrainerCallback):
    """Asks for a checkpoint when so many minutes have passed since the last one, or since training began or went on.

    Rank 0's clock decides for all ranks. It is not asked at every step, which would be a barrier, but again after half
    of the steps that the time which is left would take at the pace so far: some ten times between two checkpoints.

    Args:
        minutes: Between two checkpoints.
        share: What rank 0 gives to it -> the same on all ranks.
        clock: Seconds.
    """

    def __init__(
        self,
        minutes: float,
        share: Callable[[tuple[bool, int]], tuple[bool, int]] = ray.train.collective.broadcast_from_rank_zero,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.seconds, self.share, self.clock = 60 * minutes, share, clock

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.since, self.step, self.ask_at = self.clock(), state.global_step, state.global_step + 1

    on_save = on_train_begin

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_save or state.global_step < self.ask_at:
            return
        due, self.ask_at = self.share(self._due_and_when_to_ask_again(state.global_step))
        control.should_save = due

    def _due_and_when_to_ask_again(self, step: int) -> tuple[bool, int]:
        passed = self.clock() - self.since
        steps_left = (self.seconds - passed) * (step - self.step) / max(passed, 1e-9)
        return passed >= self.seconds, step + max(1, int(min(steps_left, sys.maxsize) / 2))


class CheckpointBeforeLoss(TrainerCallback):
    """Asks for a checkpoint when Ray says that a worker's node is about to go (it is drained), once for each node, so
    that the steps since the last one are not lost with it.

    All ranks get the same answer at the same step: asking is a barrier.
    """

    def __init__(self) -> None:
        self.known: set[str] = set()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        notice = ray.train.get_preemption_info()
        leaving = set(notice.preempted_node_ids) if notice else set()
        if leaving - self.known:
            self.known |= leaving
            control.should_save = True
            if state.is_world_process_zero:
                logger.warning("a node is about to go: checkpoint at step %d", state.global_step)


def restore_seen(folder: str, rank: int, rows: int) -> np.ndarray:
    """The counts of trained rows at a checkpoint: all ranks' sum on rank 0, none elsewhere, at any world size."""
    total = np.zeros(rows, dtype=np.int64)
    if rank == 0:
        for name in sorted(os.listdir(folder)):
            if name.startswith("seen_"):
                total += np.load(os.path.join(folder, name))
    return total


def tracker_folder(job: TrainJob, scratch: str) -> str:
    """Below it trackers write, files that grow: the artifact where it lies on a disk."""
    return job.output.path if job.output.run.is_local else scratch


class KeepTrackers(TrainerCallback):
    """Copies what trackers wrote to an artifact in an object store, as far as it is at a checkpoint or the end."""

    def __init__(self, output: Artifact, folder: str):
        self.output, self.folder = output, folder

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for name in FOLDERS:
            if os.path.isdir(source := os.path.join(self.folder, name)):
                target = posixpath.join(self.output.path, name)
                pafs.copy_files(source, target, destination_filesystem=self.output.run.filesystem)

    on_train_end = on_save


class ReportProgress(TrainerCallback):
    """Tells how far training is, and its last metrics.

    Args:
        progress: Hears of them.
        shown: A method's own metrics, by their names in the log, and their names there.
    """

    def __init__(self, progress: Any, shown: Mapping[str, str]):
        self.progress = progress
        self.names = {"loss": "loss", **shown, "learning_rate": "lr", "tokens_per_second": "tokens_per_second"}
        self.metrics: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.set(state.global_step, total=state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.set(state.global_step, total=state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        shown = {self.names[name]: value for name, value in (logs or {}).items() if name in self.names}
        if shown:
            self.metrics |= shown
            self.progress.set(state.global_step, metrics=self.metrics)


class LogPace(TrainerCallback):
    """Adds to each row of metrics how fast training is and what it needs: `tokens_per_second`, of all workers since the
    row before, and `peak_memory_gib`, of this process so far (the GPU's memory, or on a CPU the process's).

    Goes before the callbacks that hand the rows to trackers.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock = clock
        self.before: tuple[float, float] | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        found = {"peak_memory_gib": _peak_memory_gib()}
        now = self.clock(), logs.get("num_tokens", 0.0)
        if self.before is not None and now[1] > self.before[1]:
            found["tokens_per_second"] = (now[1] - self.before[1]) / max(now[0] - self.before[0], 1e-9)
        self.before = now
        logs |= found  # which later callbacks get
        state.log_history[-1] |= found


def _peak_memory_gib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB


def threads_for(cpus: float) -> None:
    """Torch's threads in a CPU worker: as many as Ray gave it, so that workers do not fight over cores."""
    torch.set_num_threads(max(1, int(cpus)))
