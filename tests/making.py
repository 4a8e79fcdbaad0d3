"""Stages of a recipe, one by one, as the runner makes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zephyr_ray import zephyr
from zephyr_ray.config.data import Preferences
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Stage, StageContext


def stage_of(recipe: Recipe, name: str) -> Stage:
    """The stage of that name."""
    return next(stage for stage in zephyr.stages(recipe) if stage.name == name)


def context_of(recipe: Recipe, artifact: Artifact, progress: Any = None) -> StageContext:
    """What the artifact's stage is made with."""
    return StageContext(stage_of(recipe, artifact.stage), artifact.run, artifact, progress)


def alone(artifact: Artifact) -> StageContext:
    """What a stage without inputs is made with."""
    return StageContext(Stage(artifact.stage, "rows", None, lambda context: {}), artifact.run, artifact, None)


def make_pairs(recipe: Recipe, artifact: Artifact, judgments: Artifact | None = None) -> Report:
    """The recipe's preference pairs."""
    from zephyr_ray.data.preferences import make_preferences

    return make_preferences(*preferences_of(recipe), artifact, judgments)


def preferences_of(recipe: Recipe) -> tuple[Preferences, int]:
    """What preference pairs are made from."""
    return recipe.preferences, recipe.run.seed


def numbered_pairs(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """A source of rows as a user may have it; the first one is no pair."""
    for number in range(count):
        yield {"prompt": f"{seed} {number}", "chosen": "yes", "rejected": "no" if number else "yes"}
