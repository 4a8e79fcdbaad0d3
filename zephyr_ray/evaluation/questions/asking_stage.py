"""A stage that asks one model: what it deploys, needs and loads, whatever it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zephyr_ray.cluster import resources
from zephyr_ray.cluster.preload import ENGINES, ROWS
from zephyr_ray.config.evaluation import EvaluationSection
from zephyr_ray.config.feedback import Server
from zephyr_ray.evaluation.questions.asking import asked_alone
from zephyr_ray.pipeline.model_source import PoolModels, pool_models
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext


class AskedModel(NamedTuple):
    """The model that a stage asks."""

    section: EvaluationSection
    """With this model alone, which names the commit that was found where it is a hub id."""
    pool: PoolModels
    """What it runs, if it is a deployment."""


def stage(
    kind: str,
    unit: str,
    evaluation: EvaluationSection,
    server: Server,
    models: Mapping[str, Stage],
    *,
    field: str,
    config: Mapping[str, Any],
    make: Callable[[AskedModel, StageContext], Manifest],
    inputs: Mapping[str, Stage],
    outside: Callable[[], dict[str, str]],
    check: Callable[[], None] = lambda: None,
    is_evaluation: bool = False,
) -> Stage:
    """The stage.

    Args:
        kind: The stage's.
        unit: What it counts.
        evaluation: Bounds on the requests.
        server: The model.
        models: The stages of this run that make models, by the names that deployments use for them.
        field: The field of the recipe that names the model.
        config: The semantic values.
        make: Makes the artifact.
        inputs: What is read, beside a checkpoint of this run.
        outside: Fingerprints of files. Raises UserError.
        check: Raises UserError where something is wrong, before any work.
        is_evaluation: Whether its result is what a person reads.
    """
    alone = asked_alone(evaluation, server)
    pool = pool_models(field, alone.models, models)

    def made(context: StageContext) -> Manifest:
        return make(AskedModel(alone.model_copy(update={"models": pool.at_commits(alone.models)}), pool), context)

    return Stage(
        kind,
        unit,
        config,
        made,
        inputs={**inputs, **pool.inputs},
        outside=lambda: pool.outside() | outside(),
        commits=pool.commits,
        local_files=pool.local_files,
        resources=(
            *resources.of_engines("evaluation", alone.deployments),
            resources.of_workers("evaluation", alone, alone.workers),
        ),
        preload=ROWS + ENGINES if alone.deployments else ROWS,
        check=check,
        is_evaluation=is_evaluation,
    )
