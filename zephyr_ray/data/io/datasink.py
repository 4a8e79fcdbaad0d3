"""A Ray Data sink that splits each block into files of kept rows and files of dropped ones."""

from __future__ import annotations

import io
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import Datasink, WriteResult

from zephyr_ray.data.io.file_counts import read_histograms, with_histograms
from zephyr_ray.data.io.histogram import Histogram
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.writer import Make, Measure, Report, RowProgress, Tally, changes_of
from zephyr_ray.schemas import CHANGED, DROPPED
from zephyr_ray.storage import write_bytes

_FILE_BYTES = 64 << 20  # in memory, before compression; a task with more writes another file


@dataclass
class Written:
    """What one write task has done."""

    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    files: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    added: int = 0
    tally: Tally | None = None

    def add(self, other: Written) -> None:
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.dropped += other.dropped
        self.files |= other.files
        self.add_histograms(other.histograms)
        self.added += other.added
        if other.tally is not None:
            self.count(other.tally)

    def add_histograms(self, histograms: Mapping[str, Histogram]) -> None:
        for name, histogram in histograms.items():
            self.histograms.setdefault(name, Histogram()).add(histogram)

    def count(self, tally: Tally) -> None:
        if self.tally is None:
            self.tally = tally
        else:
            self.tally.add(tally)


class RowSink(Datasink[Written]):
    """Splits each block by `reason` into the two folders; a kept row's `changes`, if it has them, go into `changed`.

    A file is named for its driver's epoch (`prefix`) and its write task, so a task that runs twice writes the same
    files twice; and it is written whole or not at all. Only the files of tasks that came to their end are in the
    report.
    """

    def __init__(
        self,
        filesystem: pafs.FileSystem,
        path: str,
        schema: pa.Schema,
        measure: Measure | None = None,
        progress: RowProgress | None = None,
        *,
        make: Make | None = None,
        count: Callable[[pa.Table], Tally] | None = None,
        prefix: str = "",
        dropped: pa.Schema = DROPPED,
    ):
        self.filesystem, self.path, self.schema = filesystem, path, schema
        self.measure, self.progress, self.make, self.count, self.prefix = measure, progress, make, count, prefix
        self.dropped = dropped
        self.report: Report | None = None
        self.rows_per_file: int | None = None
        self.check: Callable[[], None] = lambda: None
        self.keeps_histograms = False
        self.earlier = Written()

    def __getstate__(self) -> dict[str, Any]:
        """For the write tasks, which have no use for what earlier tries wrote."""
        return self.__dict__ | {"earlier": Written()}

    @property
    def min_rows_per_write(self) -> int | None:
        return self.rows_per_file

    def write(self, blocks: Iterable[Block], ctx: Any) -> Written:
        self.check()
        written = Written()
        tables = self._rows(blocks, written)
        for number, table in enumerate(_gather(tables)):
            self._write_file(table, f"{self.prefix}{ctx.task_idx:06d}-{number:03d}.parquet", written)
        return written

    def on_write_complete(self, write_result: WriteResult[Written]) -> None:
        total = Written()
        total.add(self.earlier)
        for written in write_result.write_returns:
            total.add(written)
        stats = {name: histogram.summary() for name, histogram in sorted(total.histograms.items())}
        report = Report(total.rows_in, total.rows_out, dict(total.dropped), total.files, stats, total.added)
        report.tally = total.tally
        _check_counts(report, write_result.num_rows + self.earlier.rows_in)
        self.report = report

    def _rows(self, blocks: Iterable[Block], written: Written) -> Iterator[pa.Table]:
        for block in blocks:
            rows = table = BlockAccessor.for_block(block).to_arrow()
            if not table.num_rows:
                continue
            if self.make is not None:
                rows, tally = self.make(table)
                written.count(tally)
            written.rows_in += table.num_rows
            written.added += rows.num_rows - table.num_rows
            yield rows
            if self.progress is not None:
                self.progress.add(table.num_rows)

    def _write_file(self, table: pa.Table, name: str, written: Written) -> None:
        is_kept = pc.is_null(table["reason"])
        kept = table.filter(is_kept).select(self.schema.names).cast(self.schema)
        dropped = table.filter(pc.invert(is_kept)).select(self.dropped.names).cast(self.dropped)
        if kept.num_rows:
            _check_no_nulls(kept, self.schema.names[0])
            self._write_changes(table.filter(is_kept), name, written)
            self._write_kept(kept, posixpath.join("data", name), written)
        if dropped.num_rows:
            written.files[self._put(dropped, posixpath.join("dropped", name))] = dropped.num_rows
            written.dropped.update(dropped["reason"].to_pylist())

    def _write_changes(self, kept: pa.Table, name: str, written: Written) -> None:
        """Before the kept rows: whoever finds those finds what was changed in them."""
        changes = _changes(kept)
        if changes.num_rows:
            self.filesystem.create_dir(posixpath.join(self.path, "changed"), recursive=True)
            written.files[self._put(changes, changes_of(posixpath.join("data", name)))] = changes.num_rows

    def _write_kept(self, kept: pa.Table, name: str, written: Written) -> None:
        measured = _measured(kept, self.measure)
        if self.keeps_histograms:
            kept = with_histograms(kept, measured)
        written.files[self._put(kept, name)] = kept.num_rows
        written.rows_out += kept.num_rows
        written.add_histograms(measured)

    def _put(self, table: pa.Table, name: str) -> str:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_bytes(self.filesystem, posixpath.join(self.path, name), buffer.getbuffer())
        return name


def _changes(kept: pa.Table) -> pa.Table:
    """`schemas.CHANGED` rows of those with `changes`."""
    if "changes" not in kept.column_names:
        return CHANGED.empty_table()
    changes = kept["changes"].combine_chunks()
    values = pc.list_flatten(changes)
    columns = {field.name: pc.struct_field(values, field.name) for field in CHANGED if field.name != "source"}
    return pa.table({"source": kept["source"].take(pc.list_parent_indices(changes)), **columns}).cast(CHANGED)


def count_files(
    paths: Iterable[str],
    filesystem: pafs.FileSystem,
    folder: str,
    measure: Measure | None = None,
    count: Callable[[pa.Table], Tally] | None = None,
) -> Written:
    """What there is to report of kept rows that an earlier try wrote: by what it kept in the files where that is all.

    Args:
        paths: Files.
        filesystem: Theirs.
        folder: The artifact's.
        measure: What to keep a histogram of.
        count: What else is counted of rows.
    """
    total = Written()
    for path in paths:
        with open_parquet(path, filesystem) as file:
            rows, kept = file.metadata.num_rows, read_histograms(file)
            total.add(Written(rows, rows, files={posixpath.relpath(path, folder): rows}, histograms=kept or {}))
            if count is None and (measure is None or kept is not None):
                continue
            for batch in file.iter_batches():
                table = pa.Table.from_batches([batch])
                if kept is None:
                    total.add_histograms(_measured(table, measure))
                if count is not None:
                    total.count(count(table))
    return total


def _measured(kept: pa.Table, measure: Measure | None) -> dict[str, Histogram]:
    found: dict[str, Histogram] = {}
    for name, values in (measure(kept) if measure else {}).items():
        found[name] = Histogram()
        found[name].count(values)
    return found


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
    if report.rows_in + report.added != accounted or report.rows_in != seen_by_ray:
        raise RuntimeError(
            f"rows in {report.rows_in}, added {report.added}, written {report.rows_out}, "
            f"dropped {sum(report.dropped.values())}, seen by Ray {seen_by_ray}: rows were lost or counted twice"
        )
