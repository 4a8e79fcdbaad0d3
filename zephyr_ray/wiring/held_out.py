"""How models do on pairs that are not trained on, of one round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from zephyr_ray.config.recipe import Recipe
from zephyr_ray.data import held_out_pairs, held_out_rewards, reference_logps, tokenized
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import preferences_stage, reward_stage
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.rounds import Round
from zephyr_ray.pipeline.stage import Stage
from zephyr_ray.training.arithmetic import scoring
from zephyr_ray.training.methods import methods

_WITHOUT_A_SUFFIX = "dpo"
"""The method whose held-out stages do not have its name: the pipeline's own."""


def with_held_out_pairs(
    recipe: Recipe, this: Round, training: list[Stage], policies: Mapping[str, Stage], pairs: Stage, start: ModelInput
) -> list[Stage]:
    """The stages of training, and beside them those of held-out pairs: read before anything is trained."""
    rows, *before = [each for each in training if not each.makes_model]
    trained = [each for each in training if each.makes_model]
    section, seed = recipe.preferences, recipe.run.seed
    others = this.put(held_out_pairs.stage(section, seed, pairs, this.pairs))
    kind = "held_out_tokenized"
    encoded = this.put(tokenized.stage(recipe.tokenized, others, start, recipe.chat, section.max_dropped, kind))
    score = partial(
        reference_logps.held_out_stage,
        section=recipe.reference_logps,
        scoring=scoring(recipe.model, recipe.dpo.training),
        chat=recipe.chat,
        tokenized=encoded,
    )
    assert this.reference is not None
    reference = this.put(score("held_out_reference", model=this.reference, whose="ref"))
    made = [others, rows, encoded, *before, reference, *trained]
    for name, (aligned, beta) in _held_out_policies(recipe, this, policies).items():
        of = None if name == _WITHOUT_A_SUFFIX else name
        scored = this.put(
            score(
                f"held_out_policies/{of}" if of else "held_out_policy",
                model=aligned,
                whose="policy",
                tokenized_by=None if aligned.stage else start,
            )
        )
        made += [scored, this.put(preferences_stage.stage(beta, seed, others, encoded, reference, scored, of))]
    return made


def _held_out_policies(
    recipe: Recipe, this: Round, policies: Mapping[str, Stage]
) -> dict[str, tuple[ModelInput, float]]:
    """The models whose implicit reward is evaluated, by name, each with the beta of the reward: its method's own, where
    that meets a reference, else DPO's. Those from outside are evaluated once, with the first round's.

    Raises:
        UserError: A model from outside has the name of a method.
    """
    found = {}
    for name, policy in policies.items():
        method = methods().get(name)
        own = getattr(recipe, name).beta if method and method.meets_a_reference else recipe.dpo.beta
        found[name] = (ModelInput("model", "model.path", stage=policy), float(own))
    for each in recipe.evaluation.held_out_models if this.number == 1 else ():
        if each.name in found:
            raise UserError(f"evaluation.held_out_models {each.name}: this run trains a model of that name; rename it")
        field = f"evaluation.held_out_models {each.name}"
        found[each.name] = (ModelInput("model", field, each.model, each.revision), recipe.dpo.beta)
    return found


def held_out_rewards_of(recipe: Recipe, this: Round, models: Sequence[Stage], pairs: Stage) -> list[Stage]:
    """How reward models do on the held-out pairs."""
    found = []
    for model in models:
        trained = ModelInput("model", "model.path", stage=model)
        rewards = this.put(held_out_rewards.stage(model.kind, recipe.reference_logps, pairs, trained))
        found += [rewards, this.put(reward_stage.stage(model.kind, recipe.run.seed, pairs, rewards))]
    return found
