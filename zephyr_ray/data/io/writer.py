"""Writes kept and dropped rows into <artifact>/data/*.parquet and <artifact>/dropped/*.parquet, and reports on them."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from zephyr_ray.data.io import file_tasks, id_sets
from zephyr_ray.data.io.id_sets import IdSet
from zephyr_ray.errors import raised_by_user
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import DROPPED

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
    files: dict[str, int] = field(default_factory=dict)
    """Everything written, relative to the artifact, and how many rows each file holds (0: none)."""
    stats: dict[str, dict[str, float]] = field(default_factory=dict)
    """For each measured number: count, sum, nonzero, min, mean, p50, p90, p99, max."""
    added: int = 0
    """Rows beyond the first that a source row became; 0 where each becomes one."""
    noted: dict[str, int | float] = field(default_factory=dict)
    """What else there is to tell, as plain numbers."""
    asked: dict[str, float] | None = None
    """Where models were asked: replies, tokens and US dollars of all tries."""
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
    dropped: pa.Schema = DROPPED,
    num_cpus: float = 1,
) -> Report:
    """Writes a dataset of `rows.mixed_schema(schema)` into an artifact.

    Args:
        dataset: Rows that are kept and rows that are dropped, told apart by `reason`; or what `make` makes them of.
        artifact: Where to.
        schema: Of the kept rows.
        measure: What to keep a histogram of.
        make: Makes the rows, in the tasks that write them: what it counts is counted as often as the rows are written.
        count: Counts kept rows alone, those of earlier tries, as `make` has, in tasks.
        progress: Hears of rows that are done.
        keep: Add to the kept rows that earlier tries wrote (`written_ids`), which the dataset must not have again.
            Otherwise none of what they wrote counts; their dropped rows never do.
        rows_per_file: Gather so many rows before a file is written, where blocks are small.
        dropped: Schema of the dropped rows.
        num_cpus: Logical CPUs of the tasks that write; those that make the dataset are part of them if they ask for as
            many.

    Raises:
        UserError: A source breaks off in the middle.
        RuntimeError: Rows were lost or counted twice.
    """
    from zephyr_ray.data.io.datasink import RowSink, count_files

    filesystem = artifact.run.filesystem
    for folder in ("data", "dropped"):
        filesystem.create_dir(posixpath.join(artifact.path, folder), recursive=True)
    earlier = [posixpath.join(artifact.path, name) for name in artifact.adopted] if keep else []
    prefix = artifact.new_prefix(len(earlier))
    sink = RowSink(
        filesystem, artifact.path, schema, measure, progress, make=make, count=count, prefix=prefix, dropped=dropped
    )
    sink.check = artifact.check_current
    sink.rows_per_file, sink.keeps_histograms = rows_per_file, keep
    calls = [(group, filesystem, artifact.path, measure, count) for group in file_tasks.groups(earlier)]
    for counted in file_tasks.results(count_files, calls):
        sink.earlier.add(counted)
    try:
        dataset.write_datasink(sink, ray_remote_args={"num_cpus": num_cpus})
    except Exception as error:
        raise raised_by_user(error) or error from None
    assert sink.report is not None
    return sink.report


def changes_of(name: str) -> str:
    """The name of the file with what was changed in the rows of a file of kept ones."""
    return posixpath.join("changed", posixpath.basename(name))


def rows_per_file(rows: int) -> int:
    """Rows of a file of a stage of so many rows that may be killed before its end: it loses few of them, and files do
    not become too many to list.
    """
    return min(4096, max(512, rows // 2048))


def written_ids(artifact: Artifact, id_column: str) -> IdSet:
    """Ids of the kept rows of an unfinished artifact: a file is there with all of its rows or not at all."""
    paths = [posixpath.join(artifact.path, name) for name in artifact.files_that_count()]
    return id_sets.of_files(paths, artifact.run.filesystem, id_column)
