"""AI feedback: answers to prompts, ratings of them, and pairs."""

from __future__ import annotations

from collections.abc import Sequence

from zephyr_ray.config.feedback import RewardModelJudge
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.data import candidates, judgments, preferences, replayed_preferences, round_prompts
from zephyr_ray.data.io.sources import OF_THE_RUN
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.rounds import Round
from zephyr_ray.pipeline.stage import Stage
from zephyr_ray.training.methods import methods


def feedback(recipe: Recipe, this: Round, asked: Stage, models: dict[str, Stage]) -> list[Stage]:
    """AI feedback: several answers to each prompt, ratings of them, and pairs: the best is y_w, a lower one y_l. The
    last stage is what is trained on."""
    seed, judged, own, policy = this.seed(recipe.run.seed), None, this.own_models(models), this.policy
    made = []
    if recipe.rounds > 1 and recipe.each_round.prompts == "share":
        asked = this.put(round_prompts.stage(recipe.run.seed, asked, this.number, recipe.rounds))
        made.append(asked)
    if recipe.sampling is not None:
        answered = this.put(candidates.stage(this.sampling(recipe.sampling), recipe.chat, seed, asked, own, policy))
        made.append(answered)
        if recipe.judging is not None and not names_own_reward_model(recipe):
            judging = this.judging(recipe.judging)
            judged = this.put(judgments.stage(judging, recipe.chat, seed, answered, own, policy=policy))
            made.append(judged)
    completions = recipe.sampling.completions if recipe.sampling else None
    made.append(this.put(preferences.stage(recipe.preferences, seed, judged, completions)))
    if this.pairs and recipe.each_round.replay:
        made.append(this.put(replayed_preferences.stage(recipe.each_round.replay, seed, made[-1], this.pairs)))
    return made


def names_own_reward_model(recipe: Recipe) -> bool:
    """Whether the judge is a reward model that the run trains: its ratings come after the pairs that it learns from.

    Raises:
        UserError: It would learn from its own ratings.
    """
    judge = recipe.judging.judge if recipe.judging else None
    if not (isinstance(judge, RewardModelJudge) and judge.model in reward_methods()):
        return False
    if recipe.preferences.train == OF_THE_RUN:
        raise UserError(
            f"judging.judge.model={judge.model} of this run learns from the judgments that it would make; name another "
            "judge, or pairs in preferences.train"
        )
    return True


def judged_by_own_reward_model(recipe: Recipe, made: Sequence[Stage]) -> Stage | None:
    """The stage `judgments` where the judge is a reward model that this run trains, which comes after all of them.

    Raises:
        UserError: The recipe has no such stage.
    """
    if recipe.judging is None or recipe.sampling is None or not names_own_reward_model(recipe):
        return None
    by_name = {stage.kind: stage for stage in made}
    return judgments.stage(recipe.judging, recipe.chat, recipe.run.seed, by_name["candidates"], by_name)


def reward_methods() -> list[str]:
    """The methods that train a reward model, by name."""
    return [name for name, method in methods().items() if method.makes_reward_model]
