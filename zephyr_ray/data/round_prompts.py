"""The prompts that one round of several answers: a share that no other round has.

A prompt's round is a function of its id and the run's seed alone.
"""

from __future__ import annotations

import functools

import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.config.member_seeds import hash_64
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import PROMPTS, Reason


def stage(seed: int, prompts: Stage, number: int, rounds: int) -> Stage:
    """The stage `round_prompts`.

    Args:
        seed: The run's.
        prompts: All prompts.
        number: The round's, from 1.
        rounds: How many there are.
    """

    def make(context: StageContext) -> Manifest:
        report = make_round_prompts(
            seed, number, rounds, context.input("prompts"), context.artifact, progress=context.progress
        )
        return drop_report.examined(report, 1.0, context.artifact)

    share = {"round": number, "rounds": rounds}
    return Stage("round_prompts", "rows", {"share": share, "seed": seed}, make, inputs={"prompts": prompts})


def make_round_prompts(
    seed: int, number: int, rounds: int, prompts: Artifact, artifact: Artifact, *, progress: RowProgress | None = None
) -> Report:
    """Writes the round's prompts; the others are dropped rows.

    Raises:
        RuntimeError: Not every row arrived.
    """
    split = functools.partial(to_rows, seed=seed, number=number, rounds=rounds)
    rows = sources.read_artifact(prompts).map_batches(split, batch_format="pyarrow", batch_size=None)
    report = writer.write(
        rows, artifact, PROMPTS, measure=lambda kept: lengths.characters(kept, ("messages",)), progress=progress
    )
    sources.check_all_read(prompts, report.rows_in)
    return report


def round_of(prompt_id: str, seed: int, rounds: int) -> int:
    """The round that answers a prompt, from 1: each is equally likely."""
    return hash_64("round", seed, prompt_id) % rounds + 1


def to_rows(batch: pa.Table, *, seed: int, number: int, rounds: int) -> pa.Table:
    """`schemas.PROMPTS` rows -> `rows.mixed_schema` of them: those of other rounds have a reason."""
    found = pa.array([round_of(each, seed, rounds) for each in batch["prompt_id"].to_pylist()], pa.int64())
    own = pc.equal(found, number)
    details = pc.binary_join_element_wise("of round", pc.cast(found, pa.string()), " ")
    rows = batch.select(PROMPTS.names)
    rows = rows.append_column("reason", pc.if_else(own, None, str(Reason.NOT_SELECTED)))
    return rows.append_column("detail", pc.if_else(own, None, details))
