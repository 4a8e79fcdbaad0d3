"""The stages that train a model on rows, by Ray Train."""

from __future__ import annotations

from functools import partial
from typing import Any

from zephyr_ray import chat_template
from zephyr_ray.cluster import resources
from zephyr_ray.cluster.preload import ROWS, TRAINING
from zephyr_ray.config.recipe import DPO, SFT, Chat, ModelSection
from zephyr_ray.config.section import semantic
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.training.trl_options import check_trl_options


def sft(section: SFT, model: ModelSection, chat: Chat, seed: int, rows: Stage, base: ModelInput) -> Stage:
    """The stage `sft`: the base model learns from tokenized dialogues."""
    return _stage("sft", section, model, chat, seed, base, {rows.kind: rows})


def dpo(
    section: DPO, model: ModelSection, chat: Chat, seed: int, rows: Stage, reference_logps: Stage, start: ModelInput
) -> Stage:
    """The stage `dpo`: the supervised model learns from tokenized pairs and their reference log-probs."""
    return _stage("dpo", section, model, chat, seed, start, {rows.kind: rows, reference_logps.kind: reference_logps})


def _stage(
    kind: Any,
    section: SFT | DPO,
    model: ModelSection,
    chat: Chat,
    seed: int,
    start: ModelInput,
    rows: dict[str, Stage],
) -> Stage:
    def make(context: StageContext) -> Manifest:
        from zephyr_ray.cluster import connect
        from zephyr_ray.training.launch import train
        from zephyr_ray.training.task import TrainingSettings, TrainJob

        tokenized, *logps = (context.input(name) for name in rows)
        job = TrainJob(
            TrainingSettings(kind, section, model, chat, seed),
            start.source(context.run),
            tokenized,
            logps[0] if logps else None,
            context.artifact,
            context.progress,
            nodes_may_go=connect.is_joined(),
        )
        return train(job)

    lora = model.lora
    return Stage(
        kind,
        "steps",
        {
            kind: semantic(section),
            "model": {"dtype": model.dtype, "lora": semantic(lora) if lora else None},
            "chat": semantic(chat),
            "seed": seed,
        },
        make,
        inputs={**rows, **start.inputs},
        outside=start.outside,
        local_files=chat_template.local_files(chat) + start.local_files,
        resources=(resources.of_workers(f"{kind}.training", section.training, section.training.fewest_workers),),
        preload=ROWS + TRAINING,
        check=partial(check_trl_options, kind, tuple(section.training.trl)),
        makes_model=True,
    )
