"""Takes rows out of an artifact that was written: they move from data/ to dropped/, with the reason."""

from __future__ import annotations

import dataclasses
import io
import posixpath
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zephyr_ray.data.io import file_tasks
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import DROPPED, Reason

_AT_ONCE = 16  # files that are deleted, where each may be some way off

IsLeftOut = Callable[[int, pa.Table], np.ndarray]
"""The number of a file among those of kept rows, and its rows (the columns asked for) -> whether each goes ([n], bool).
Called in tasks."""

Detail = str | Callable[[pa.Table], pa.Array]
"""What dropped rows tell of themselves: a column of theirs, or the rows -> a text for each. Called in tasks."""


class _Rewritten(NamedTuple):
    """A file of which rows were left out, and the one that takes its place, if any row is left."""

    old: str
    new: str | None
    left: int
    gone: int


def leave_out(
    artifact: Artifact,
    report: Report,
    reason: Reason,
    is_left_out: IsLeftOut,
    columns: Sequence[str],
    detail: Detail,
    schema: pa.Schema = DROPPED,
) -> Report:
    """Moves kept rows to dropped/ and returns the report that is true then (its statistics stay as they were).

    Only files with such a row in them are read whole and written again, in tasks, under another name: a task that runs
    twice finds what it found before.

    Args:
        artifact: One that `writer.write` has just written and that is not finished.
        report: Of that.
        reason: Why the rows go.
        is_left_out: Which of them go.
        columns: What it wants to see of a row.
        detail: What a dropped row tells of itself.
        schema: Of dropped rows: `schemas.DROPPED`, and what else a kept row has that is kept of it.
    """
    numbered = list(enumerate(kept_files(report.files)))
    calls = [
        (artifact, group, number, reason, is_left_out, columns, detail, schema)
        for number, group in enumerate(file_tasks.groups(numbered))
    ]
    files = dict(report.files)
    gone = 0
    for rewritten, dropped in file_tasks.results(_rewrite_files, calls):
        for each in rewritten:
            del files[each.old]
            if each.new is not None:
                files[each.new] = each.left
        files |= dropped
        gone += sum(dropped.values())
    if not gone:
        return report
    _delete(artifact, report.files.keys() - files.keys())
    return dataclasses.replace(
        report, rows_out=report.rows_out - gone, dropped={**report.dropped, str(reason): gone}, files=files
    )


def kept_files(files: Iterable[str]) -> list[str]:
    """Of an artifact's files those of kept rows, sorted."""
    return sorted(name for name in files if name.startswith("data/"))


def _rewrite_files(
    artifact: Artifact,
    numbered: Sequence[tuple[int, str]],
    group: int,
    reason: Reason,
    is_left_out: IsLeftOut,
    columns: Sequence[str],
    detail: Detail,
    schema: pa.Schema,
) -> tuple[list[_Rewritten], dict[str, int]]:
    """Those of some files that were rewritten, and the file of their dropped rows with how many it holds."""
    filesystem = artifact.run.filesystem
    rewritten, dropped = [], [schema.empty_table()]
    for number, name in numbered:
        with open_parquet(posixpath.join(artifact.path, name), filesystem) as file:
            mask = is_left_out(number, file.read(list(columns)))
            if not mask.any():
                continue
            table = file.read()
        gone, left = table.filter(pa.array(mask)), table.filter(pa.array(~mask))
        dropped.append(_as_dropped(gone, reason, detail, schema))
        new = f"{name.removesuffix('.parquet')}-{reason}.parquet" if left.num_rows else None
        if new is not None:
            _write(artifact, new, left)
        rewritten.append(_Rewritten(name, new, left.num_rows, gone.num_rows))
    if not rewritten:
        return [], {}
    name, all_dropped = artifact.new_name(f"dropped/{reason}-{group:03d}.parquet"), pa.concat_tables(dropped)
    _write(artifact, name, all_dropped)
    return rewritten, {name: all_dropped.num_rows}


def _as_dropped(gone: pa.Table, reason: Reason, detail: Detail, schema: pa.Schema) -> pa.Table:
    reasons = pa.repeat(str(reason), gone.num_rows)
    details = gone[detail] if isinstance(detail, str) else detail(gone)
    told = {"reason": reasons, "detail": details}
    return pa.table({name: told[name] if name in told else gone[name] for name in schema.names}).cast(schema)


def _write(artifact: Artifact, name: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    artifact.write_bytes(name, buffer.getvalue())


def _delete(artifact: Artifact, names: Iterable[str]) -> None:
    paths = [posixpath.join(artifact.path, name) for name in names]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(artifact.run.filesystem.delete_file, paths))
