"""A model's numbers for each row of an artifact, by a pool of Ray Data actors.

They are written as they are computed, so that a rerun after a kill computes only the rows that were in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from zephyr_ray.cluster import connect
from zephyr_ray.config.training import ReferenceLogps
from zephyr_ray.data.io import resume, writer
from zephyr_ray.data.io.sources import count_rows
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact

_BATCHES = 4  # of a file at least: what a kill may cost, at most, for each actor
_FILES = 10_000  # at most, where there are so many rows that a file of more batches is still a small part of them


def write_scores(
    section: ReferenceLogps,
    rows: Artifact,
    artifact: Artifact,
    id_column: str,
    schema: pa.Schema,
    actor: type,
    arguments: Sequence[Any],
    *,
    progress: Any = None,
) -> Report:
    """Writes the numbers of every row, beside those that an earlier try wrote.

    Args:
        section: The actors.
        rows: What is scored.
        artifact: What is written.
        id_column: The rows' identity, in both.
        schema: Of what is written.
        actor: Holds the model; a batch of the rows -> `rows.mixed_schema(schema)` rows.
        arguments: Of its constructor.
        progress: Told of rows as they are done.

    Raises:
        RuntimeError: The files do not hold every row exactly once.
        UserError: The model cannot be used.
    """
    import ray.data

    done, total = writer.written_ids(artifact, id_column), count_rows(rows)
    if progress is not None:
        progress.set(len(done), total=total)
    left = resume.rows_left(rows, done, id_column)
    scored = left.repartition(target_num_rows_per_block=rows_per_file(total, section.batch_size)).map_batches(
        actor,
        fn_constructor_args=tuple(arguments),
        batch_format="pyarrow",
        batch_size=section.batch_size,
        compute=ray.data.ActorPoolStrategy(size=section.workers),
        num_cpus=section.cpus_per_worker,
        num_gpus=section.gpus_per_worker or None,
        label_selector=connect.selector(section.labels),
    )
    report = writer.write(scored, artifact, schema, progress=progress, keep=True)
    resume.check_exactly_once(rows, artifact, report, id_column)
    return report


def rows_per_file(rows: int, batch_size: int) -> int:
    """Rows of a file where there are so many in all: whole batches."""
    return batch_size * max(_BATCHES, rows // (_FILES * batch_size))
