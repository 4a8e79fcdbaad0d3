"""Going on where an earlier try of a stage stopped: the rows that are left, and that none is lost or there twice."""

from __future__ import annotations

import functools
import posixpath
import re
from typing import TYPE_CHECKING

import pyarrow as pa

from zephyr_ray.data.io import id_sets, readers, sources, writer
from zephyr_ray.data.io.id_sets import IdSet
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact

if TYPE_CHECKING:
    import ray.data

_AS_WRITTEN = re.compile(r"\d{6}-\d{3}\.parquet$")  # `datasink.RowSink`


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


def adopt_first_written(artifact: Artifact) -> None:
    """Leaves of the adopted files those as a sink wrote them: not those that took their place when rows were left out
    later, for both may be there after a kill."""
    rewritten = [name for name in artifact.adopted if not _AS_WRITTEN.search(name)]
    artifact.adopted = tuple(name for name in artifact.adopted if name not in rewritten)
    for name in rewritten if not artifact.epoch else ():  # else its name tells that it does not count
        artifact.delete(name)


def raw_rows_left(raw: ray.data.Dataset, artifact: Artifact, num_cpus: float = 1) -> ray.data.Dataset:
    """Raw rows (`sources.RAW_ROW`, read with as many `num_cpus`) without those whose `source` is one of the rows that
    the artifact adopted."""
    if not artifact.adopted:
        return raw
    paths = [posixpath.join(artifact.path, name) for name in artifact.adopted]
    done = id_sets.of_files(paths, artifact.run.filesystem, "source")
    left = functools.partial(_left, done=done)
    return raw.map_batches(left, batch_format="pyarrow", batch_size=None, num_cpus=num_cpus)


def _left(raw: pa.Table, *, done: IdSet) -> pa.Table:
    return raw.filter(pa.array(~done.has(raw["source"])))


def check_exactly_once(source: Artifact, artifact: Artifact, report: Report, id_column: str) -> None:
    """Holds what the tries of a stage wrote against what they read: each row becomes one, written or dropped.

    Raises:
        RuntimeError: Rows were lost or are there twice.
    """
    check_rows(f"{source.uri} holds", sources.count_rows(source), artifact, report, id_column)


def check_rows(what: str, wanted: int, artifact: Artifact, report: Report, id_column: str) -> None:
    """As `check_exactly_once`, for rows that lie in no artifact.

    Args:
        what: The beginning of the error, before the number of rows.
        wanted: How many there were.
        artifact: What was written.
        report: What became of them.
        id_column: Tells the written rows apart.
    """
    written = writer.written_ids(artifact, id_column)
    twice = written.rows - written.size
    if report.rows_in != wanted or twice:
        raise RuntimeError(
            f"{what} {wanted} rows; {report.rows_in} are accounted for, and of {written.rows} written ones "
            f"{twice} are there twice"
        )
