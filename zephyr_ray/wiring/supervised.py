"""dSFT: a raw model learns from dialogues, which a teacher may have made, cleaned and chosen."""

from __future__ import annotations

from functools import partial

from zephyr_ray.config.feedback import OWN_MODELS
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.config.section import Function
from zephyr_ray.config.training import SFT
from zephyr_ray.data import (
    dialogue_candidates,
    dialogues,
    embeddings,
    generated_dialogues,
    held_out_dialogues,
    judgments,
    selected_dialogues,
    tokenized_dialogues,
)
from zephyr_ray.data.diversity import stage as diversity
from zephyr_ray.data.io.sources import GENERATED
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.stage import Stage
from zephyr_ray.training import base_model
from zephyr_ray.training import stage as training
from zephyr_ray.training.methods import method_of
from zephyr_ray.wiring.alignment import trainings


def generated(recipe: Recipe, models: dict[str, Stage]) -> list[Stage]:
    """Dialogues that teachers make, and how different they are; a model of this run may teach only what it does not
    learn from.

    Raises:
        UserError: A teacher is such a model.
    """
    section = recipe.generation
    if section is None:
        return []
    if recipe.dialogues.train == GENERATED:
        own = next((each for each in section.deployments if each.model in OWN_MODELS), None)
        if own is not None:
            raise UserError(
                f"generation.pool {own.name}: model={own.model} of this run learns from the dialogues that it would "
                "make; name another model"
            )
    made = generated_dialogues.stages(section, recipe.run.seed, models)
    embedded = (
        [] if recipe.embeddings is None else [embeddings.stage(recipe.embeddings, made[-1], "generated_embeddings")]
    )
    return [*made, *embedded, diversity.stage(recipe.run.seed, made[-1], *embedded)]


def supervised(recipe: Recipe, generated: Stage | None) -> list[Stage]:
    """dSFT: a raw model learns from what a teacher demonstrated."""
    seed, section = recipe.run.seed, recipe.sft
    cleaned = dialogues.stage(recipe.dialogues, seed, generated)
    selection = _selection(recipe, cleaned)
    demonstrations = [cleaned, *selection][-1]
    if section is None:
        return [cleaned, *selection]
    made, raw = _raw_model(section, seed)
    length = None if section.packing_strategy == "wrapped" else section.max_length
    tokenize = partial(
        tokenized_dialogues.stage,
        base=raw,
        chat=recipe.chat,
        max_length=length,
        max_dropped=recipe.dialogues.max_dropped,
    )
    rows, held_out = [tokenize(demonstrations)], None
    if recipe.dialogues.held_out is not None:
        others = held_out_dialogues.stage(recipe.dialogues, seed, cleaned)
        held_out = tokenize(others, kind="held_out_tokenized_dialogues")
        rows += [others, held_out]
    trained = [
        training.stage(settings, raw, rows[0], held_out=held_out if method_of(settings.method).eval_steps else None)
        for settings in trainings(recipe, "dialogues")
    ]
    return [*made, cleaned, *selection, *rows, *trained]


def _selection(recipe: Recipe, cleaned: Stage) -> list[Stage]:
    """Some of the dialogues that cleaning left, the last stage; none where the recipe chooses none.

    Raises:
        UserError: The recipe does not say what they are to be embedded or rated by.
    """
    section, seed = recipe.dialogues.select, recipe.run.seed
    if section is None:
        return []
    vectors = judged = None
    made = []
    if embedded_by := selected_dialogues.embeddings_of(section, recipe.embeddings):
        vectors = embeddings.stage(embedded_by, cleaned)
        made.append(vectors)
    if judged_by := selected_dialogues.judging_of(section, recipe.judging):
        answers = dialogue_candidates.stage(cleaned)
        judged = judgments.stage(judged_by, recipe.chat, seed, answers, {}, "dialogue_judgments")
        made += [answers, judged]
    return [*made, selected_dialogues.stage(section, seed, cleaned, vectors, judged, judged_by)]


def _raw_model(section: SFT, seed: int) -> tuple[list[Stage], ModelInput]:
    """The stage that makes it, where one does, and the model."""
    if isinstance(section.base, Function):
        made = base_model.stage("sft.base", section.base, seed)
        return [made], ModelInput("base", "sft.base", stage=made)
    return [], ModelInput("base", "sft.base", section.base, section.revision)
