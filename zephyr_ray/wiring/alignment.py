"""What learns from pairs, of one round: dDPO and the methods beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from zephyr_ray.config.recipe import Recipe
from zephyr_ray.data import reference_logps, tokenized, tokenized_groups
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.rounds import Round
from zephyr_ray.pipeline.stage import Stage
from zephyr_ray.training import extrapolated
from zephyr_ray.training import stage as training
from zephyr_ray.training.arithmetic import scoring
from zephyr_ray.training.methods import method_of, methods
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.wiring.held_out import held_out_rewards_of, with_held_out_pairs

ALL_ROWS = ("pairs", "best_answers", "unpaired", "prompts")
"""What models learn from behind SFT."""


def starts_somewhere(recipe: Recipe) -> bool:
    """Whether there is a model that learns from preferences."""
    return recipe.model.path is not None or recipe.sft is not None


def start_of(recipe: Recipe, models: dict[str, Stage]) -> ModelInput | None:
    """The model that learns from preferences; None where the recipe has none."""
    if not starts_somewhere(recipe):
        return None
    given = recipe.model
    own = None if given.path else models["sft"]
    return ModelInput("model", "model.path", given.path, given.revision, own)


def preference_optimisation(recipe: Recipe, this: Round, feedback: list[Stage], start: ModelInput) -> list[Stage]:
    """dDPO from the newest model, and how it does on pairs that it was not trained on.

    Args:
        recipe: The recipe.
        this: The round.
        feedback: Its stages of AI feedback.
        start: The model that the first round starts from, whose tokenizer is that of all.
    """
    section = recipe.preferences
    assert this.policy is not None
    assert this.reference is not None
    rows = this.put(tokenized.stage(recipe.tokenized, feedback[-1], start, recipe.chat, section.max_dropped))
    as_policy = scoring(recipe.model, recipe.dpo.training)
    grouped = [each for each in trainings(recipe, "pairs") if each.grouped]
    laid_out = [rows, this.put(tokenized_groups.stage(rows))] if grouped else [rows]
    score = partial(reference_logps.stage, recipe.reference_logps, as_policy, recipe.chat)
    logps = this.put(score(laid_out[-1], this.reference, partial(_check_groups, grouped) if grouped else None))
    policies = _policies(recipe, this, laid_out, logps)
    rewards = _reward_models(recipe, this, rows, feedback[-1])
    made = [*laid_out, logps, *policies.values(), *rewards]
    if recipe.expo is not None and (aligned := policies.get(extrapolated.OF)):
        policies[extrapolated.KIND] = this.put(extrapolated.stage(recipe.expo, this.policy, aligned))
        made.append(policies[extrapolated.KIND])
    if section.held_out is None:
        return made
    pairs = next(stage for stage in feedback if stage.kind == "preferences")
    made = with_held_out_pairs(recipe, this, made, policies, pairs, start)
    held_out = next(stage for stage in made if stage.kind == "held_out_pairs")
    return [*made, *held_out_rewards_of(recipe, this, rewards, held_out)]


def _reward_models(recipe: Recipe, this: Round, rows: Stage, pairs: Stage) -> list[Stage]:
    """The stages that train a reward model on the first round's pairs, from the model that the policies start from."""
    assert this.policy is not None
    found = []
    for settings in trainings(recipe, "pairs") if this.number == 1 else ():
        method = method_of(settings.method)
        if method.makes_reward_model:
            scored = pairs if method.reads_scores(settings.section) else None
            found.append(training.stage(settings, this.policy, rows, preferences=scored))
    return found


def _check_groups(grouped: Sequence[TrainingSettings]) -> None:
    for each in grouped:
        groups = method_of(each.method).groups
        assert groups is not None
        groups.check(each.section)


def _policies(recipe: Recipe, this: Round, rows: Sequence[Stage], logps: Stage) -> dict[str, Stage]:
    """The stages that train on pairs, by method: all start from the same model, and those with a reference meet it.

    Args:
        recipe: The recipe.
        this: The round.
        rows: The pairs, and behind them their groups, if the recipe makes such.
        logps: The reference's log-probs of the last of them.

    Raises:
        UserError: One of them computes otherwise than DPO, as which the reference is scored, or other rows.
    """
    assert this.policy is not None
    found = {}
    for each in trainings(recipe, "pairs"):
        if this.number > 1 and each.method != recipe.each_round.method:
            continue  # one method goes on
        is_reference = this.policy is this.reference
        settings = replace(each, seed=this.seed(each.seed), starts_as_reference=is_reference)
        name, meets = settings.method, method_of(settings.method).meets_a_reference
        if method_of(name).makes_reward_model:
            continue
        read = rows[-1 if settings.grouped else 0]
        found[name] = this.put(training.stage(settings, this.policy, read, logps if meets else None))
        if meets and len(rows) > 1 and not settings.grouped:
            raise UserError(
                f"{name} learns pair by pair from a reference, and with preferences.rejected=every_pair the reference "
                "is that of whole groups; set preferences.rejected to random_lower or lowest"
            )
        scored = reference_logps.settings(recipe.reference_logps, scoring(recipe.model, settings.section.training))
        if meets and scored != logps.config:
            raise UserError(f"{name}.training computes log-probs otherwise than dpo.training, whose reference it meets")
    return found


def trainings(recipe: Recipe, rows: str) -> list[TrainingSettings]:
    """What the methods on such rows are made from, as far as the recipe has a section for them."""
    given = {name: getattr(recipe, name, None) for name, method in methods().items() if method.rows == rows}
    every_pair = rows == "pairs" and recipe.preferences.rejected == "every_pair"
    return [
        TrainingSettings(
            name,
            section,
            recipe.model,
            recipe.chat,
            recipe.run.seed,
            grouped=every_pair and method_of(name).groups is not None,
        )
        for name, section in given.items()
        if section is not None
    ]


def final_methods(recipe: Recipe, rows: Sequence[str] = ("pairs",)) -> list[str]:
    """The methods on such rows that the recipe has a section for, by name."""
    return [settings.method for kind in rows for settings in trainings(recipe, kind)]


def policy_methods(recipe: Recipe) -> list[str]:
    """Those of them whose models answer, by name: another round can go on from one."""
    return [name for name in final_methods(recipe) if not method_of(name).makes_reward_model]
