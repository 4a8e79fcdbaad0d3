"""The stage that trains a model on rows by a method, on Ray Train."""

from __future__ import annotations

from functools import partial

from zephyr_ray import chat_template
from zephyr_ray.cluster import connect, resources
from zephyr_ray.cluster.preload import ROWS, TRAINING
from zephyr_ray.config.section import semantic
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.training.methods import method_of
from zephyr_ray.training.rewards import RewardInput
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.training.trackers import check_trackers
from zephyr_ray.training.trl_options import check_trl_options


def stage(
    settings: TrainingSettings,
    start: ModelInput,
    rows: Stage,
    reference_logps: Stage | None = None,
    held_out: Stage | None = None,
    preferences: Stage | None = None,
    reward: RewardInput | None = None,
) -> Stage:
    """The stage of a method, with its name.

    Args:
        settings: What the training is made from.
        start: The model that it begins with.
        rows: Tokenized dialogues or pairs, or groups of these, or prompts.
        reference_logps: The reference's log-probs of the pairs, where the method reads any.
        held_out: Tokenized rows on which its loss is evaluated, where it evaluates any.
        preferences: The pairs themselves, where the method reads their scores.
        reward: What rewards the model's own completions, where it learns from these.
    """
    kind, training, model = settings.method, settings.section.training, settings.model
    read = {each.kind: each for each in (rows, reference_logps, preferences) if each is not None}

    def make(context: StageContext) -> Manifest:
        from zephyr_ray.training.launch import train
        from zephyr_ray.training.task import TrainJob

        job = TrainJob(
            settings,
            start.source(context.run),
            context.input(rows.kind),
            context.input(reference_logps.kind) if reference_logps else None,
            context.artifact,
            context.progress,
            connect.is_joined(),
            held_out=context.input(held_out.kind) if held_out else None,
            preferences=context.input(preferences.kind) if preferences else None,
            reward=reward.locate(context.run) if reward else None,
        )
        return train(job)

    return Stage(
        kind,
        "steps",
        {
            kind: semantic(settings.section),
            "model": {"dtype": model.dtype, "lora": semantic(model.lora) if model.lora else None},
            "chat": semantic(settings.chat),
            "seed": settings.seed,
            **({"judging": {"judge": reward.judge}} if reward else {}),
        },
        make,
        inputs={**read, **start.inputs, **(reward.inputs if reward else {})},
        watched={held_out.kind: held_out} if held_out else {},
        outside=lambda: (
            chat_template.fingerprints(settings.chat) | start.outside() | (reward.outside() if reward else {})
        ),
        commits=lambda: start.commits() | (reward.commits() if reward else {}),
        local_files=start.local_files + (reward.local_files if reward else ()),
        resources=(resources.of_workers(f"{kind}.training", training, training.fewest_workers),),
        preload=ROWS + TRAINING,
        check=partial(_check, settings),
        makes_model=True,
    )


def _check(settings: TrainingSettings) -> None:
    method, training = method_of(settings.method), settings.section.training
    check_trl_options(method, tuple(training.trl))
    check_trackers(method.name, training.report_to)
    if method.makes_reward_model and settings.model.lora is not None:
        raise UserError(f"model.lora: {method.name} trains whole weights; leave the adapter out of its recipe")
    if settings.grouped and method.groups:
        method.groups.check(settings.section)
