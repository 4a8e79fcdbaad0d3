"""Rewards of held-out pairs, by a pool of Ray Data actors, as the reward model gives them to answers that it judges.

They are written as they are computed, so that a rerun after a kill computes only the pairs that were in flight.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from zephyr_ray.cluster import resources
from zephyr_ray.cluster.preload import ROWS, TRAINING
from zephyr_ray.config.training import ReferenceLogps
from zephyr_ray.data.io import drop_report
from zephyr_ray.data.io.rows import all_kept
from zephyr_ray.data.io.writer import Report
from zephyr_ray.data.reference_logps import device_of
from zephyr_ray.data.scored_rows import write_scores
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelInput, ModelSource
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import HELD_OUT_REWARDS

_ID = "pair_id"


def stage(name: str, section: ReferenceLogps, pairs: Stage, model: ModelInput) -> Stage:
    """The stage `held_out_rewards/NAME`.

    Args:
        name: Of the reward model.
        section: The actors.
        pairs: The held-out pairs.
        model: The reward model.
    """

    def make(context: StageContext) -> Manifest:
        source = model.source(context.run)
        report = make_held_out_rewards(
            section, context.input(pairs.kind), context.artifact, source, progress=context.progress
        )
        return drop_report.manifest(report) | {"model": source.fingerprint}

    return Stage(
        f"held_out_rewards/{name}",
        "pairs",
        {"device": device_of(section)},
        make,
        inputs={pairs.kind: pairs, **model.inputs},
        outside=model.outside,
        commits=model.commits,
        local_files=model.local_files,
        resources=(resources.of_workers("reference_logps", section, section.workers),),
        preload=ROWS + TRAINING,
    )


def make_held_out_rewards(
    section: ReferenceLogps,
    pairs: Artifact,
    artifact: Artifact,
    model: ModelSource,
    *,
    progress: Any = None,
) -> Report:
    """Writes both rewards of every pair, beside those that an earlier try wrote.

    Raises:
        RuntimeError: The files do not hold every pair exactly once.
        UserError: It is no reward model.
    """
    return write_scores(section, pairs, artifact, _ID, HELD_OUT_REWARDS, _Scorer, (section, model), progress=progress)


class _Scorer:
    """Holds the reward model in one actor and answers batches of `schemas.PREFERENCES` rows with their rewards."""

    def __init__(self, section: ReferenceLogps, model: ModelSource):
        from zephyr_ray.judging.reward_judge import RewardModel
        from zephyr_ray.training.model import device_of_actor

        device = device_of_actor(section.cpus_per_worker, section.gpus_per_worker, "reference_logps")
        self.model = RewardModel(model, batch_size=2 * section.batch_size, device=device)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.select(["prompt", "chosen", "rejected"]).to_pylist()
        sides = [(row["prompt"], row[side][-1]["content"]) for row in rows for side in ("chosen", "rejected")]
        rewards = self.model.score(sides)
        columns = [batch[_ID], *(pa.array(each, pa.float64()) for each in (rewards[::2], rewards[1::2]))]
        return all_kept(columns, HELD_OUT_REWARDS)
