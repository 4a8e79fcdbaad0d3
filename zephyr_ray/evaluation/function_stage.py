"""An evaluation by a user function."""

from __future__ import annotations

from collections.abc import Sequence

from zephyr_ray.cluster.preload import ROWS, TRAINING
from zephyr_ray.cluster.resources import Demand
from zephyr_ray.config.evaluation import Evaluation
from zephyr_ray.config.section import semantic
from zephyr_ray.pipeline import plugin
from zephyr_ray.pipeline.model_source import stage_source
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext


def stage(section: Evaluation, seed: int, models: Sequence[Stage]) -> Stage:
    """The stage with the section's name.

    The function is called as `function(checkpoints, artifact, seed=, workers=, progress=, **options)`; checkpoints are
    `model_source.ModelSource` by the names of their stages. It writes into the artifact and returns its part of the
    manifest, with `files` and, for a person, `lines`.
    """
    field = f"evaluation.functions {section.name}"

    def make(context: StageContext) -> Manifest:
        checkpoints = {each.name: stage_source(context.input(each.name)) for each in models}
        evaluate = plugin.load(field, section.function)
        made: Manifest = evaluate(
            checkpoints,
            context.artifact,
            seed=seed,
            workers=section.workers,
            progress=context.progress,
            **section.options,
        )
        return made

    return Stage(
        section.name,
        "answers",
        {"evaluation": semantic(section), "seed": seed},
        make,
        inputs={each.name: each for each in models},
        outside=lambda: plugin.fingerprints("function", field, section.function),
        resources=(Demand(section.name, {"CPU": 1}, section.workers),),
        preload=ROWS + TRAINING,
        is_evaluation=True,
    )
