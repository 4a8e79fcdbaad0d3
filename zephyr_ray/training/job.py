"""What a Ray Train worker is told, and its entry. Light: Ray Train's controller reads it and needs no model library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zephyr_ray.artifacts import Artifact
from zephyr_ray.errors import UserError
from zephyr_ray.models import ModelSource
from zephyr_ray.recipe import DPO, SFT, Recipe


@dataclass(frozen=True)
class TrainJob:
    """What a worker needs to know. Travels from the driver to every worker by pickle."""

    stage: str
    recipe: Recipe
    model: ModelSource
    tokenized: Artifact
    reference_logps: Artifact | None
    output: Artifact
    progress: Any

    @property
    def section(self) -> SFT | DPO:
        section = self.recipe.sft if self.stage == "sft" else self.recipe.dpo
        assert section is not None
        return section


def train_worker(config: dict[str, TrainJob]) -> None:
    """One Ray Train worker. What a user can mend ends the job with one line instead of being retried."""
    from zephyr_ray.training.loop import train

    job = config["job"]
    try:
        train(job)
    except UserError as error:
        job.progress.fail(str(error))
