"""What a training is made from, beside its rows and the model that it starts from."""

from __future__ import annotations

from dataclasses import dataclass

from zephyr_ray.config.model import Chat, ModelSection
from zephyr_ray.config.training import Optimisation


@dataclass(frozen=True)
class TrainingSettings:
    """The sections of a recipe that a training reads. Travels from the driver to every worker by pickle."""

    method: str
    """Its name, which is that of the stage and of `section` in the recipe."""
    section: Optimisation
    model: ModelSection
    chat: Chat
    seed: int
    starts_as_reference: bool = True
    """Whether a method with a reference meets the model that the training starts from."""
    grouped: bool = False
    """Whether its rows are groups: prompts, each with all of its completions."""
