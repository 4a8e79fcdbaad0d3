"""Reads blocks of kept and dropped rows -> <artifact>/data/*.parquet, <artifact>/dropped/*.parquet and a `Report`."""

from __future__ import annotations

import functools
import io
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import ray.data
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import Datasink, WriteResult

from zephyr_ray.artifacts import Artifact
from zephyr_ray.data.histogram import Histogram
from zephyr_ray.errors import raised_by_user
from zephyr_ray.schemas import DROPPED
from zephyr_ray.shared_files import check_visible
from zephyr_ray.storage import write_bytes

_FILE_BYTES = 64 << 20  # in memory, before compression; a task with more writes another file

Measure = Callable[[pa.Table], Mapping[str, np.ndarray]]
"""Kept rows -> integers to keep a histogram of (lengths, tokens cut off), one for each row."""


class Counts(Protocol):
    """Anything that merges: what `observe` makes of the rows of a task."""

    def add(self, other: Any) -> None: ...


Observe = Callable[[pa.Table], Counts]
"""A table of kept and dropped rows, with every column they have -> what is counted of them."""


class Progress(Protocol):
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
    """Rows beyond the first that a source row became; 0 where each becomes one. Their column `part` is above 1."""
    noted: dict[str, int | float] = field(default_factory=dict)
    """What else there is to tell, as plain numbers."""
    observed: Any = None
    """The merged counts of `observe`."""


@dataclass
class _Written:
    """What one write task has done."""

    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    added: int = 0
    observed: Counts | None = None

    def add(self, other: _Written) -> None:
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.dropped += other.dropped
        self.files += other.files
        for name, histogram in other.histograms.items():
            self.histograms.setdefault(name, Histogram()).add(histogram)
        self.added += other.added
        if other.observed is not None:
            self.observe(other.observed)

    def observe(self, counts: Counts) -> None:
        if self.observed is None:
            self.observed = counts
        else:
            self.observed.add(counts)


def write(
    dataset: ray.data.Dataset,
    artifact: Artifact,
    schema: pa.Schema,
    *,
    measure: Measure | None = None,
    observe: Observe | None = None,
    progress: Progress | None = None,
    keep: bool = False,
    rows_per_file: int | None = None,
) -> Report:
    """Writes a dataset of `rows.mixed_schema(schema)` into an artifact.

    Args:
        dataset: Rows that are kept and rows that are dropped, told apart by `reason`.
        artifact: Where to.
        schema: Of the kept rows.
        measure: What to keep a histogram of.
        progress: Hears of rows that are done.
        keep: Add to the kept rows that an earlier try wrote (`written_ids`), which the dataset must not have again.
            Otherwise whatever rows there are is replaced. Dropped rows are always replaced.
        rows_per_file: Gather so many rows before a file is written, where blocks are small.

    A row may have more columns, which `observe` sees. One of them counts here: `part`, from 1, numbers the rows that
    came of one source row.

    Raises:
        UserError: A source breaks off in the middle.
        RuntimeError: Rows were lost or counted twice.
    """
    filesystem = artifact.run.filesystem
    for folder in ("data", "dropped"):
        path = posixpath.join(artifact.path, folder)
        filesystem.create_dir(path, recursive=True)
        if not (keep and folder == "data"):
            filesystem.delete_dir_contents(path, missing_dir_ok=True)
    earlier = _written(artifact) if keep else []
    prefix = _next_prefix(earlier) if keep else ""
    sink = RowSink(filesystem, artifact.path, schema, measure, progress, observe=observe, prefix=prefix)
    sink.check = functools.partial(check_visible, artifact)
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


class RowSink(Datasink[_Written]):
    """Splits each block by `reason` into the two folders.

    A file is named for its write task, so a task that runs twice writes the same files twice; and it is written whole
    or not at all. Only the files of tasks that came to their end are in the report.
    """

    def __init__(
        self,
        filesystem: pafs.FileSystem,
        path: str,
        schema: pa.Schema,
        measure: Measure | None = None,
        progress: Progress | None = None,
        *,
        observe: Observe | None = None,
        prefix: str = "",
    ):
        self.filesystem, self.path, self.schema = filesystem, path, schema
        self.measure, self.progress, self.observe, self.prefix = measure, progress, observe, prefix
        self.report: Report | None = None
        self.rows_per_file: int | None = None
        self.check: Callable[[], None] = lambda: None
        self._earlier = _Written()

    @property
    def min_rows_per_write(self) -> int | None:
        return self.rows_per_file

    def count_earlier(self, paths: Iterable[str]) -> None:
        """Takes the kept rows of an earlier try into the report."""
        for path in paths:
            with pq.ParquetFile(path, filesystem=self.filesystem) as file:
                for batch in file.iter_batches():
                    self._count_kept(pa.Table.from_batches([batch]), self._earlier)
                    self._earlier.rows_in += batch.num_rows
            self._earlier.files.append(posixpath.relpath(path, self.path))

    def write(self, blocks: Iterable[Block], ctx: Any) -> _Written:
        self.check()
        written = _Written()
        tables = self._count(blocks, written)
        for number, table in enumerate(_gather(tables)):
            self._write_file(table, f"{self.prefix}{ctx.task_idx:06d}-{number:03d}.parquet", written)
        return written

    def on_write_complete(self, write_result: WriteResult[_Written]) -> None:
        total = _Written()
        total.add(self._earlier)
        for written in write_result.write_returns:
            total.add(written)
        stats = {name: histogram.summary() for name, histogram in sorted(total.histograms.items())}
        report = Report(total.rows_in, total.rows_out, dict(total.dropped), sorted(total.files), stats, total.added)
        report.observed = total.observed
        _check_counts(report, write_result.num_rows + self._earlier.rows_in)
        self.report = report

    def _count(self, blocks: Iterable[Block], written: _Written) -> Iterator[pa.Table]:
        for block in blocks:
            table = BlockAccessor.for_block(block).to_arrow()
            added = _added(table)
            written.rows_in += table.num_rows - added
            written.added += added
            if table.num_rows:
                yield table
            if self.progress is not None:
                self.progress.add(table.num_rows - added)

    def _write_file(self, table: pa.Table, name: str, written: _Written) -> None:
        if self.observe is not None:
            written.observe(self.observe(table))
        is_kept = pc.is_null(table["reason"])
        kept = table.filter(is_kept).select(self.schema.names).cast(self.schema)
        dropped = table.filter(pc.invert(is_kept)).select(DROPPED.names).cast(DROPPED)
        if kept.num_rows:
            _check_no_nulls(kept, self.schema.names[0])
            written.files.append(self._put(kept, posixpath.join("data", name)))
            self._count_kept(kept, written)
        if dropped.num_rows:
            written.files.append(self._put(dropped, posixpath.join("dropped", name)))
            written.dropped.update(dropped["reason"].to_pylist())

    def _count_kept(self, kept: pa.Table, written: _Written) -> None:
        written.rows_out += kept.num_rows
        for key, values in (self.measure(kept) if self.measure else {}).items():
            written.histograms.setdefault(key, Histogram()).count(values)

    def _put(self, table: pa.Table, name: str) -> str:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_bytes(self.filesystem, posixpath.join(self.path, name), buffer.getbuffer())
        return name


def _added(table: pa.Table) -> int:
    if "part" not in table.column_names:
        return 0
    return pc.sum(pc.greater(table["part"], 1)).as_py() or 0  # a row that is the only one has no number


def _gather(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Joins small tables to about the size of a file."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(each.nbytes for each in held) >= _FILE_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _check_no_nulls(kept: pa.Table, id_column: str) -> None:
    if kept[id_column].null_count:
        raise RuntimeError(f"{kept[id_column].null_count} kept rows have no {id_column}")


def _check_counts(report: Report, seen_by_ray: int) -> None:
    accounted = report.rows_out + sum(report.dropped.values())
    if not report.rows_in + report.added == accounted == seen_by_ray:
        raise RuntimeError(
            f"rows in {report.rows_in}, added {report.added}, written {report.rows_out}, "
            f"dropped {sum(report.dropped.values())}, seen by Ray {seen_by_ray}: rows were lost or counted twice"
        )
