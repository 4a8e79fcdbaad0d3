"""A Ray Data sink that splits each block into files of kept rows and files of dropped ones."""

from __future__ import annotations

import io
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import Datasink, WriteResult

from zephyr_ray.data.io.histogram import Histogram
from zephyr_ray.data.io.writer import Make, Measure, Report, RowProgress, Tally
from zephyr_ray.schemas import DROPPED
from zephyr_ray.storage import write_bytes

_FILE_BYTES = 64 << 20  # in memory, before compression; a task with more writes another file


@dataclass
class _Written:
    """What one write task has done."""

    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    files: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    added: int = 0
    tally: Tally | None = None

    def add(self, other: _Written) -> None:
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.dropped += other.dropped
        self.files |= other.files
        for name, histogram in other.histograms.items():
            self.histograms.setdefault(name, Histogram()).add(histogram)
        self.added += other.added
        if other.tally is not None:
            self.count(other.tally)

    def count(self, tally: Tally) -> None:
        if self.tally is None:
            self.tally = tally
        else:
            self.tally.add(tally)


class RowSink(Datasink[_Written]):
    """Splits each block by `reason` into the two folders.

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
    ):
        self.filesystem, self.path, self.schema = filesystem, path, schema
        self.measure, self.progress, self.make, self.count, self.prefix = measure, progress, make, count, prefix
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
                self._earlier.files[posixpath.relpath(path, self.path)] = file.metadata.num_rows
                for batch in file.iter_batches():
                    kept = pa.Table.from_batches([batch])
                    self._count_kept(kept, self._earlier)
                    self._earlier.rows_in += kept.num_rows
                    if self.count is not None:
                        self._earlier.count(self.count(kept))

    def write(self, blocks: Iterable[Block], ctx: Any) -> _Written:
        self.check()
        written = _Written()
        tables = self._rows(blocks, written)
        for number, table in enumerate(_gather(tables)):
            self._write_file(table, f"{self.prefix}{ctx.task_idx:06d}-{number:03d}.parquet", written)
        return written

    def on_write_complete(self, write_result: WriteResult[_Written]) -> None:
        total = _Written()
        total.add(self._earlier)
        for written in write_result.write_returns:
            total.add(written)
        stats = {name: histogram.summary() for name, histogram in sorted(total.histograms.items())}
        report = Report(total.rows_in, total.rows_out, dict(total.dropped), total.files, stats, total.added)
        report.tally = total.tally
        _check_counts(report, write_result.num_rows + self._earlier.rows_in)
        self.report = report

    def _rows(self, blocks: Iterable[Block], written: _Written) -> Iterator[pa.Table]:
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

    def _write_file(self, table: pa.Table, name: str, written: _Written) -> None:
        is_kept = pc.is_null(table["reason"])
        kept = table.filter(is_kept).select(self.schema.names).cast(self.schema)
        dropped = table.filter(pc.invert(is_kept)).select(DROPPED.names).cast(DROPPED)
        if kept.num_rows:
            _check_no_nulls(kept, self.schema.names[0])
            written.files[self._put(kept, posixpath.join("data", name))] = kept.num_rows
            self._count_kept(kept, written)
        if dropped.num_rows:
            written.files[self._put(dropped, posixpath.join("dropped", name))] = dropped.num_rows
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
