"""What learns from the best answers to prompts: rejection sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zephyr_ray.config.recipe import Recipe
from zephyr_ray.data import best_answers, tokenized_dialogues
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.stage import Stage
from zephyr_ray.training import stage as training
from zephyr_ray.wiring.alignment import start_of, trainings


def learning(recipe: Recipe, made: Sequence[Stage], models: dict[str, Stage]) -> list[Stage]:
    """The best of the first round's answers, their tokens, and the methods that learn them; none where there is none.

    Args:
        recipe: The recipe.
        made: The stages before, `judgments` among them.
        models: The stages that make models before AI feedback, by name.

    Raises:
        UserError: Nothing judges answers.
    """
    start, found = start_of(recipe, models), []
    for settings in trainings(recipe, "best_answers") if start else ():
        assert start is not None
        section: Any = settings.section
        judged = next((each for each in made if each.name == "judgments"), None)
        if judged is None:
            raise UserError(
                f"{settings.method} learns the best of several judged answers; add the sections sampling and judging"
            )
        best = best_answers.stage(section.answers, recipe.preferences.score, recipe.run.seed, judged)
        rows = tokenized_dialogues.stage(
            best,
            start,
            recipe.chat,
            section.max_length,
            section.answers.max_dropped,
            "tokenized_best_answers",
            only_last_answer=True,
        )
        found += [best, rows, training.stage(settings, start, rows)]
    return found
