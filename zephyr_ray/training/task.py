"""What a Ray Train worker is told, and its entry. Light: Ray Train's controller reads it and needs no model library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray.train
import ray.train.collective

from zephyr_ray.config.training import Training
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.training.rewards import LoadReward
from zephyr_ray.training.scratch import check_scratch
from zephyr_ray.training.settings import TrainingSettings


@dataclass(frozen=True)
class TrainJob:
    """What a worker needs to know. Travels from the driver to every worker by pickle."""

    settings: TrainingSettings
    model: ModelSource
    tokenized: Artifact
    reference_logps: Artifact | None
    output: Artifact
    progress: Any
    nodes_may_go: bool = False
    """Whether it runs on a cluster that loses nodes while it goes on."""
    resume_from: str | None = None
    """The last checkpoint of an earlier driver, in the run's filesystem."""
    held_out: Artifact | None = None
    """Tokenized rows on which the loss is evaluated."""
    preferences: Artifact | None = None
    """The pairs themselves, where the method reads their scores."""
    reward: LoadReward | None = None
    """What rewards the model's own completions, where it learns from these."""

    @property
    def stage(self) -> str:
        return self.settings.method

    @property
    def training(self) -> Training:
        return self.settings.section.training


def train_worker(config: dict[str, TrainJob]) -> None:
    """One Ray Train worker. What a user can mend ends the job with one line instead of being retried."""
    job = config["job"]
    if not _all_see(job):
        return
    from zephyr_ray.training.worker import train

    try:
        train(job)
    except UserError as error:
        job.progress.fail(str(error))


def _all_see(job: TrainJob) -> bool:
    """Whether the machines of all workers see the stage, and have room for what it writes on the way: none of them
    starts alone, to wait for the others in vain."""
    try:
        job.output.check_current()
        check_scratch(job)
    except UserError as error:
        job.progress.fail(str(error))
    ray.train.collective.barrier()
    return job.progress.read()["failure"] is None
