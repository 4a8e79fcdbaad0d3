"""Going on where an earlier try of a stage stopped: the rows that are left, and that none is lost or there twice."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.data.io import sources, writer
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact

if TYPE_CHECKING:
    import ray
    import ray.data


def rows_left(source: Artifact, done: pa.ChunkedArray, id_column: str) -> ray.data.Dataset:
    """A stream of an artifact's rows without those that are done.

    Args:
        source: What is read.
        done: Ids of the rows that earlier tries wrote (`writer.written_ids`).
        id_column: Of the source.
    """
    import ray

    rows = sources.read_artifact(source)
    if not len(done):
        return rows
    drop = functools.partial(_without, done=ray.put(done), id_column=id_column)
    return rows.map_batches(drop, batch_format="pyarrow", batch_size=None)


def check_exactly_once(source: Artifact, artifact: Artifact, report: Report, id_column: str) -> None:
    """Holds what the tries of a stage wrote against what they read: each row becomes one, written or dropped.

    Raises:
        RuntimeError: Rows were lost or are there twice.
    """
    wanted = sources.count_rows(source)
    ids = writer.written_ids(artifact, id_column)
    twice = len(ids) - len(pc.unique(ids))
    if report.rows_in != wanted or twice:
        raise RuntimeError(
            f"{source.uri} holds {wanted} rows; {report.rows_in} are accounted for, and of {len(ids)} written ones "
            f"{twice} are there twice"
        )


def _without(batch: pa.Table, *, done: ray.ObjectRef, id_column: str) -> pa.Table:
    import ray

    return batch.filter(pc.invert(pc.is_in(batch[id_column], value_set=ray.get(done))))
