"""What learns from a model's own completions of the run's prompts, as a judge rewards them: GRPO and RLOO."""

from __future__ import annotations

from collections.abc import Sequence

from zephyr_ray.config.feedback import RewardModelJudge
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.data.judgments import reward_model_of
from zephyr_ray.judging.rewards import reward_of
from zephyr_ray.pipeline.stage import Stage
from zephyr_ray.training import stage as training
from zephyr_ray.wiring.alignment import start_of, trainings


def learning(recipe: Recipe, made: Sequence[Stage], models: dict[str, Stage]) -> list[Stage]:
    """The stages of the methods that learn from their own completions, from the model that dDPO starts from.

    Args:
        recipe: The recipe.
        made: The stages before, `prompts` among them, and `reward_model` where that judges.
        models: The stages that make models before AI feedback, by name.

    Raises:
        UserError: Nothing rewards completions.
    """
    start, found = start_of(recipe, models), []
    by_name = {stage.name: stage for stage in made}
    for settings in trainings(recipe, "prompts") if start else ():
        assert start is not None
        judge = recipe.judging.judge if recipe.judging else None
        model = reward_model_of(judge, by_name) if isinstance(judge, RewardModelJudge) else None
        reward = reward_of(recipe.judging, settings.method, model)
        found.append(training.stage(settings, start, by_name["prompts"], reward=reward))
    return found
