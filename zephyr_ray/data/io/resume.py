"""Going on where an earlier try of a stage stopped: the rows that are left, and that none is lost or there twice."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from zephyr_ray.data.io import readers, sources, writer
from zephyr_ray.data.io.id_sets import IdSet
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact

if TYPE_CHECKING:
    import ray.data


def rows_left(source: Artifact, done: IdSet, id_column: str) -> ray.data.Dataset:
    """A stream of an artifact's rows without those that are done.

    Args:
        source: What is read; of files in which every row is done nothing but the ids.
        done: Ids of the rows that earlier tries wrote (`writer.written_ids`).
        id_column: Of the source.
    """
    if not len(done):
        return sources.read_artifact(source)
    read = functools.partial(
        readers.read_rows_left, filesystem=source.run.filesystem, id_column=id_column, is_done=done.has
    )
    return sources.stream([{"path": path} for path in source.files()], read)


def check_exactly_once(source: Artifact, artifact: Artifact, report: Report, id_column: str) -> None:
    """Holds what the tries of a stage wrote against what they read: each row becomes one, written or dropped.

    Raises:
        RuntimeError: Rows were lost or are there twice.
    """
    wanted = sources.count_rows(source)
    written = writer.written_ids(artifact, id_column)
    twice = written.rows - written.size
    if report.rows_in != wanted or twice:
        raise RuntimeError(
            f"{source.uri} holds {wanted} rows; {report.rows_in} are accounted for, and of {written.rows} written ones "
            f"{twice} are there twice"
        )
