"""Stages that train a model on rows, by Ray Train."""

from __future__ import annotations

from functools import partial
from typing import Any

from zephyr_ray import chat_template
from zephyr_ray.cluster import resources
from zephyr_ray.cluster.preload import ROWS, TRAINING
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.config.section import semantic
from zephyr_ray.config.training import DPO, SFT
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.training.trl_options import check_trl_options


def sft(recipe: Recipe, rows: Stage, base: ModelInput) -> Stage:
    """The stage `sft`: the base model learns from tokenized dialogues."""
    assert recipe.sft is not None
    return _stage("sft", recipe, recipe.sft, base, {rows.kind: rows})


def dpo(recipe: Recipe, rows: Stage, reference_logps: Stage, model: ModelInput) -> Stage:
    """The stage `dpo`: the supervised model learns from tokenized pairs and their reference log-probs."""
    return _stage("dpo", recipe, recipe.dpo, model, {rows.kind: rows, reference_logps.kind: reference_logps})


def _stage(kind: Any, recipe: Recipe, section: SFT | DPO, model: ModelInput, rows: dict[str, Stage]) -> Stage:
    def make(context: StageContext) -> Manifest:
        from zephyr_ray.training.launch import train

        tokenized, *logps = (context.input(name) for name in rows)
        source = model.source(context.run)
        return train(kind, recipe, source, tokenized, logps[0] if logps else None, context.artifact, context.progress)

    lora = recipe.model.lora
    return Stage(
        kind,
        "steps",
        {
            kind: semantic(section),
            "model": {"dtype": recipe.model.dtype, "lora": semantic(lora) if lora else None},
            "chat": semantic(recipe.chat),
            "seed": recipe.run.seed,
        },
        make,
        inputs={**rows, **model.inputs},
        outside=model.outside,
        local_files=chat_template.local_files(recipe.chat) + model.local_files,
        resources=(resources.of_workers(f"{kind}.training", section.training, section.training.fewest_workers),),
        preload=ROWS + TRAINING,
        check=partial(check_trl_options, kind, tuple(section.training.trl)),
        makes_model=True,
    )
