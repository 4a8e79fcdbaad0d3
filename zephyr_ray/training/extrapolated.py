"""The stage `expo`: a model beyond dDPO's, without training (`extrapolation`)."""

from __future__ import annotations

from zephyr_ray.cluster.preload import ROWS, TRAINING
from zephyr_ray.cluster.resources import Demand
from zephyr_ray.config.section import semantic
from zephyr_ray.config.training import Extrapolation
from zephyr_ray.errors import raised_by_user
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext

KIND = "expo"
OF = "dpo"
"""The training that it goes beyond, in the same round."""


def stage(section: Extrapolation, start: ModelInput, aligned: Stage) -> Stage:
    """The stage.

    Args:
        section: How far beyond the aligned model.
        start: The model that alignment started from.
        aligned: The stage that aligned it.
    """

    def make(context: StageContext) -> Manifest:
        import ray

        from zephyr_ray.training.extrapolation import write_checkpoint

        models = start.source(context.run), ModelInput(aligned.kind, KIND, stage=aligned).source(context.run)
        task = ray.remote(write_checkpoint)  # a driver may have little memory
        try:
            weights = ray.get(task.remote(*models, section.alpha, context.artifact))
        except Exception as error:
            raise raised_by_user(error) or error from None
        return {"files": [], "checkpoint": context.artifact.new_checkpoint(), "weights": weights}

    return Stage(
        KIND,
        "files",
        semantic(section),
        make,
        inputs={**start.inputs, aligned.name: aligned},
        outside=start.outside,
        commits=start.commits,
        local_files=start.local_files,
        resources=(Demand(KIND, {"CPU": 1}, 1),),
        preload=ROWS + TRAINING,
        makes_model=True,
    )
