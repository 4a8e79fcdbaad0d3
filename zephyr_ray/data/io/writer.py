"""Writes kept and dropped rows into <artifact>/data/*.parquet and <artifact>/dropped/*.parquet, and reports on them."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from zephyr_ray.errors import raised_by_user
from zephyr_ray.pipeline.artifacts import Artifact

if TYPE_CHECKING:
    import ray.data

Measure = Callable[[pa.Table], Mapping[str, np.ndarray]]
"""Kept rows -> integers to keep a histogram of (lengths, tokens cut off), one for each row."""


class Tally(Protocol):
    """What is counted of rows beside lengths; tallies of several tasks add up."""

    def add(self, other: Any) -> None: ...


Make = Callable[[pa.Table], tuple[pa.Table, Tally]]
"""A block as it comes -> rows (`rows.mixed_schema`), at least one for each of its own, and what is counted of them."""


class RowProgress(Protocol):
    """Where a task says that rows are done; its reports do not wait for an answer."""

    def add(self, rows: int) -> None: ...


@dataclass
class Report:
    """What became of the rows. `rows_in` + `added` is always `rows_out` plus the dropped ones."""

    rows_in: int = 0
    """Source rows."""
    rows_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""
    files: list[str] = field(default_factory=list)
    """Everything written, relative to the artifact."""
    stats: dict[str, dict[str, float]] = field(default_factory=dict)
    """For each measured number: count, sum, nonzero, min, mean, p50, p90, p99, max."""
    added: int = 0
    """Rows beyond the first that a source row became; 0 where each becomes one."""
    noted: dict[str, int | float] = field(default_factory=dict)
    """What else there is to tell, as plain numbers."""
    tally: Any = None
    """What `make` counted of all rows; None where there were none, or no `make`."""


def write(
    dataset: ray.data.Dataset,
    artifact: Artifact,
    schema: pa.Schema,
    *,
    measure: Measure | None = None,
    make: Make | None = None,
    count: Callable[[pa.Table], Tally] | None = None,
    progress: RowProgress | None = None,
    keep: bool = False,
    rows_per_file: int | None = None,
) -> Report:
    """Writes a dataset of `rows.mixed_schema(schema)` into an artifact.

    Args:
        dataset: Rows that are kept and rows that are dropped, told apart by `reason`; or what `make` makes them of.
        artifact: Where to.
        schema: Of the kept rows.
        measure: What to keep a histogram of.
        make: Makes the rows, in the tasks that write them: what it counts is counted as often as the rows are written.
        count: Counts kept rows alone, those of an earlier try, as `make` has.
        progress: Hears of rows that are done.
        keep: Add to the kept rows that an earlier try wrote (`written_ids`), which the dataset must not have again.
            Otherwise whatever rows there are is replaced. Dropped rows are always replaced.
        rows_per_file: Gather so many rows before a file is written, where blocks are small.

    Raises:
        UserError: A source breaks off in the middle.
        RuntimeError: Rows were lost or counted twice.
    """
    from zephyr_ray.data.io.datasink import RowSink

    filesystem = artifact.run.filesystem
    for folder in ("data", "dropped"):
        path = posixpath.join(artifact.path, folder)
        filesystem.create_dir(path, recursive=True)
        if not (keep and folder == "data"):
            filesystem.delete_dir_contents(path, missing_dir_ok=True)
    earlier = _written(artifact) if keep else []
    prefix = _next_prefix(earlier) if keep else ""
    sink = RowSink(filesystem, artifact.path, schema, measure, progress, make=make, count=count, prefix=prefix)
    sink.check = artifact.check_visible
    sink.rows_per_file = rows_per_file
    sink.count_earlier(earlier)
    try:
        dataset.write_datasink(sink)
    except Exception as error:
        raise raised_by_user(error) or error from None
    assert sink.report is not None
    return sink.report


def written_ids(artifact: Artifact, id_column: str) -> pa.ChunkedArray:
    """Ids of the kept rows that an earlier try wrote: a file is there with all of its rows or not at all."""
    tables = [
        pq.read_table(path, filesystem=artifact.run.filesystem, columns=[id_column]) for path in _written(artifact)
    ]
    return pa.concat_tables(tables)[id_column] if tables else pa.chunked_array([], pa.string())


def _written(artifact: Artifact) -> list[str]:
    """Paths of an unfinished artifact's files of kept rows."""
    selector = pafs.FileSelector(posixpath.join(artifact.path, "data"), allow_not_found=True)
    infos = artifact.run.filesystem.get_file_info(selector)
    return sorted(info.path for info in infos if info.path.endswith(".parquet"))


def _next_prefix(paths: list[str]) -> str:
    """Starts the names of this try's files: no file of an earlier try is written over."""
    last = max((int(posixpath.basename(path).split("-")[0]) for path in paths), default=0)
    return f"{last + 1:03d}-"
