"""Dialogues as candidates (`schemas.CANDIDATES`): a judge rates the last answer of each in view of what precedes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import CANDIDATES

_BATCH_ROWS = 1024


def stage(dialogues: Stage) -> Stage:
    """The stage `dialogue_candidates`."""

    def make(context: StageContext) -> Manifest:
        report = make_candidates(context.input(dialogues.kind), context.artifact, progress=context.progress)
        return drop_report.manifest(report)

    return Stage("dialogue_candidates", "rows", {}, make, inputs={dialogues.kind: dialogues})


def make_candidates(dialogues: Artifact, artifact: Artifact, *, progress: Any = None) -> Report:
    """Writes each dialogue as a prompt, under the dialogue's own id, with one completion.

    Raises:
        RuntimeError: Not every row arrived.
    """
    rows = sources.read_artifact(dialogues).map_batches(to_candidates, batch_format="pyarrow", batch_size=_BATCH_ROWS)
    report = writer.write(rows, artifact, CANDIDATES, measure=lengths.completions, progress=progress)
    sources.check_all_read(dialogues, report.rows_in)
    return report


def to_candidates(batch: pa.Table) -> pa.Table:
    """`schemas.DIALOGUES` rows -> `rows.mixed_schema(schemas.CANDIDATES)` rows. The model is the file of the row."""
    made = []
    for row in batch.to_pylist():
        *prompt, answer = row["messages"]
        completion = {"model": row["source"].rpartition(":")[0] or row["source"], "content": answer["content"]}
        made.append({"prompt_id": row["dialogue_id"], "messages": prompt, "completions": [completion]})
    return pa.Table.from_pylist(made, schema=mixed_schema(CANDIDATES))
