"""The pairs that a later round trains on: its own, and a share of those of each earlier round.

Which earlier pairs are taken is a function of their ids and the round's seed alone. A pair that occurs twice is kept
once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.config.member_seeds import hash_64
from zephyr_ray.data.cleaning.dedup import drop_repeated
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import PREFERENCES, Reason


def stage(share: float, seed: int, preferences: Stage, earlier: Sequence[Stage]) -> Stage:
    """The stage `replayed_preferences`.

    Args:
        share: Of the pairs of each earlier round, from 0 to 1.
        seed: The round's.
        preferences: The round's own pairs.
        earlier: The pairs of earlier rounds, each round's own.
    """
    before = {f"preferences of round {each.round}": each for each in earlier}

    def make(context: StageContext) -> Manifest:
        report = make_replayed_preferences(
            share,
            seed,
            context.input("preferences"),
            [context.input(name) for name in before],
            context.artifact,
            progress=context.progress,
        )
        return drop_report.examined(report, 1.0, context.artifact)

    return Stage(
        "replayed_preferences",
        "rows",
        {"replay": share, "seed": seed},
        make,
        inputs={"preferences": preferences, **before},
    )


def make_replayed_preferences(
    share: float,
    seed: int,
    preferences: Artifact,
    earlier: Sequence[Artifact],
    artifact: Artifact,
    *,
    progress: RowProgress | None = None,
) -> Report:
    """Writes the round's pairs and those of earlier rounds that are drawn; the others are dropped rows.

    Raises:
        RuntimeError: Not every row arrived.
    """
    own, *before = (
        sources.read_artifact(each).map_batches(
            functools.partial(to_rows, seed=seed, share=drawn), batch_format="pyarrow", batch_size=None
        )
        for each, drawn in [(preferences, 1.0), *((each, share) for each in earlier)]
    )
    report = writer.write(own.union(*before), artifact, PREFERENCES, measure=_measure, progress=progress)
    there = sum(sources.count_rows(each) for each in (preferences, *earlier))
    if there != report.rows_in:
        raise RuntimeError(f"{artifact.uri}: the rounds have {there} pairs, and {report.rows_in} arrived")
    return drop_repeated(artifact, report, "pair_id")


def is_taken(pair_id: str, seed: int, share: float) -> bool:
    """Whether a pair of an earlier round is drawn: with this probability."""
    return hash_64("replay", seed, pair_id) < share * 2**64


def to_rows(batch: pa.Table, *, seed: int, share: float) -> pa.Table:
    """`schemas.PREFERENCES` rows -> `rows.mixed_schema` of them: those that are not drawn have a reason."""
    taken = pa.array([is_taken(each, seed, share) for each in batch["pair_id"].to_pylist()], pa.bool_())
    rows = batch.select(PREFERENCES.names)
    rows = rows.append_column("reason", pc.if_else(taken, None, str(Reason.NOT_SELECTED)))
    return rows.append_column("detail", pc.if_else(taken, None, f"not among the {share:g} of an earlier round"))


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return lengths.characters(kept, ("prompt", "chosen", "rejected"))
