"""Finds rows in the Parquet files of an artifact by a column of text, reading that column alone, and then the row."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.epochs import epoch_of

_AT_ONCE = 8  # files that are read at one time, each a row group of a column in memory
ID_COLUMNS = ("pair_id", "prompt_id", "dialogue_id", "pair_ids")
"""Of a group the last one: a list, of which one has to be meant."""

Matches = Callable[[pa.ChunkedArray], pa.ChunkedArray]
"""Text -> whether each is meant."""


class Spot(NamedTuple):
    """A row of an artifact."""

    file: str
    """Relative to the artifact."""
    row: int
    """Its number in the file, from 1."""
    value: str
    """Of the column that it was found by."""


def data_files(artifact: Artifact, folder: str = "data") -> list[str]:
    """The files of an artifact that count, also while it is unfinished; relative to it, sorted."""
    if artifact.manifest() is not None:
        return [each.name for each in artifact.entries(folder) if each.name.endswith(".parquet")]
    if folder == "data":
        return artifact.files_that_count()
    begun_by = (artifact.unfinished() or {}).get("epoch", 0)
    return sorted(posixpath.join(folder, name) for name in artifact.names(folder) if epoch_of(name) == begun_by)


def columns_of(artifact: Artifact, files: Sequence[str]) -> list[str]:
    """The columns of an artifact's rows."""
    if not files:
        return []
    with open_parquet(posixpath.join(artifact.path, files[0]), artifact.run.filesystem) as file:
        return list(file.schema_arrow.names)


def find(artifact: Artifact, files: Sequence[str], column: str, matches: Matches) -> list[Spot]:
    """The rows whose column is meant, in the order of the files.

    Raises:
        UserError: A file cannot be read.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda name: list(_find_in(artifact, name, column, matches)), files)
        return [spot for spots in found for spot in spots]


def row_at(artifact: Artifact, file: str, number: int) -> dict[str, Any]:
    """A row of a file (its number from 1), of which only the row group that has it is read.

    Raises:
        UserError: The file cannot be read, or has no such row.
    """
    try:
        with open_parquet(posixpath.join(artifact.path, file), artifact.run.filesystem) as opened:
            first = 0
            for group in range(opened.metadata.num_row_groups):
                rows = opened.metadata.row_group(group).num_rows
                if first < number <= first + rows:
                    return _row_of(opened, group, number - first - 1)
                first += rows
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(artifact, file, error) from None
    raise UserError(f"{artifact.uri}/{file} has no row {number}; was it replaced?")


def smaller(artifact: Artifact, files: Sequence[str], column: str, value: str) -> int:
    """How many rows have a smaller text in a column."""

    def count(name: str) -> int:
        return sum(int(pc.sum(pc.less(part, value)).as_py() or 0) for part in _parts(artifact, name, column))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return sum(pool.map(count, files))


def begins_with(text: str) -> Matches:
    """Matches text that begins so."""
    return lambda column: pc.starts_with(column, text)


def is_one_of(texts: Sequence[str]) -> Matches:
    """Matches any of some texts."""
    return lambda column: pc.is_in(column, pa.array(texts, pa.string()))


def fits(pattern: str) -> Matches:
    """Matches text that a regular expression (RE2) finds something in."""
    return lambda column: pc.match_substring_regex(column, pattern)


def dropped_rows(artifact: Artifact, is_meant: Sequence[tuple[str, Matches]]) -> list[dict[str, Any]]:
    """The rows that a stage dropped and that are meant by any of some columns: source, reason and detail."""
    files = data_files(artifact, "dropped")
    found = {spot[:2] for column, matches in is_meant for spot in find(artifact, files, column, matches)}
    return [row_at(artifact, file, number) for file, number in sorted(found)]


def _find_in(artifact: Artifact, name: str, column: str, matches: Matches) -> Iterator[Spot]:
    first = 0
    for part in _parts(artifact, name, column):
        rows = np.arange(len(part))
        values = part
        if pa.types.is_list(part.type):
            lists = part.combine_chunks()
            values, rows = pa.chunked_array([pc.list_flatten(lists)]), pc.list_parent_indices(lists).to_numpy()
        mask = pc.fill_null(matches(values), False)
        for index in np.flatnonzero(mask.to_numpy()).tolist():
            yield Spot(name, first + int(rows[index]) + 1, values[index].as_py())
        first += len(part)


def _parts(artifact: Artifact, name: str, column: str) -> Iterator[pa.ChunkedArray]:
    """A column of a file, a row group at a time."""
    try:
        with open_parquet(posixpath.join(artifact.path, name), artifact.run.filesystem) as file:
            for group in range(file.metadata.num_row_groups):
                yield file.read_row_group(group, columns=[column]).column(0)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(artifact, name, error) from None


def _row_of(file: pq.ParquetFile, group: int, index: int) -> dict[str, Any]:
    for batch in file.iter_batches(row_groups=[group], batch_size=256):
        if index < batch.num_rows:
            row: dict[str, Any] = batch.slice(index, 1).to_pylist()[0]
            return row
        index -= batch.num_rows
    raise AssertionError("the row group has fewer rows than its metadata says")


def _unreadable(artifact: Artifact, file: str, error: Exception) -> UserError:
    return UserError(f"{artifact.uri}/{file} cannot be read: {' '.join(str(error).split())[:200]}")
