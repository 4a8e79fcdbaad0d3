"""What learns from completions with labels: KTO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zephyr_ray.config.recipe import Recipe
from zephyr_ray.data import tokenized_unpaired, unpaired, unpaired_reference_logps
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.stage import Stage
from zephyr_ray.training import stage as training
from zephyr_ray.training.arithmetic import scoring
from zephyr_ray.wiring.alignment import trainings


def learning(recipe: Recipe, made: Sequence[Stage], start: ModelInput | None) -> list[Stage]:
    """The completions with labels, their tokens, the reference's log-probs and the methods that learn them; none where
    there is none.

    Args:
        recipe: The recipe.
        made: The stages before, the first round's `judgments` among them where the recipe makes any.
        start: The model that learns from preferences; None where the recipe has none.
    """
    found: list[Stage] = []
    for settings in trainings(recipe, "unpaired") if start else ():
        assert start is not None
        section: Any = settings.section
        judged = next((each for each in made if each.name == "judgments"), None)
        completions = recipe.sampling.completions if recipe.sampling else None
        rows = unpaired.stage(recipe.preferences, settings.seed, judged, completions)
        tokens = tokenized_unpaired.stage(recipe.tokenized, rows, start, recipe.chat, recipe.preferences.max_dropped)
        order = {name: getattr(section, name) for name in ("global_batch", "epochs", "max_steps")}
        logps = unpaired_reference_logps.stage(
            recipe.reference_logps,
            scoring(recipe.model, section.training),
            recipe.chat,
            tokens,
            start,
            order | {"seed": settings.seed} if section.meets_others else None,
        )
        found += [rows, tokens, logps, training.stage(settings, start, tokens, logps)]
    return found
