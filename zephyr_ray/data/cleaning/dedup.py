"""Drop repeated rows of an artifact: of rows with the same id, the one with the smallest source stays.

Ids are hashes of content, so a repeat adds nothing. It would count twice in training, and everything keyed by id
(reference log-probs, resuming) needs unique ids. The ids are sorted in tasks, 16 bytes to an id, and only files with a
repeat are rewritten.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from zephyr_ray.data.io import file_tasks, id_sets, keys
from zephyr_ray.data.io.id_sets import IdSet, KeyTable
from zephyr_ray.data.io.rewrite import kept_files, leave_out
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import DROPPED, Reason

_PLACES = pa.schema(
    [
        ("high", pa.uint64()),
        ("low", pa.uint64()),
        ("source", pa.string()),
        ("file", pa.uint64()),
        ("row", pa.uint64()),
    ]
)
"""A row with a repeated id: its key, and where it is (the numbers of its file and in it)."""


def drop_repeated(artifact: Artifact, report: Report, id_column: str, schema: pa.Schema = DROPPED) -> Report:
    """Moves repeats from data/ to dropped/ and returns the updated report (its statistics do not change).

    Which of the repeats stays does not depend on how the rows are divided into files.
    """
    paths = [posixpath.join(artifact.path, name) for name in kept_files(report.files)]
    ids = id_sets.of_files(paths, artifact.run.filesystem, id_column)
    if not ids.repeated.size:
        return report
    is_repeat = functools.partial(_is_repeat, stays=_smallest_source(paths, artifact, id_column, ids))
    return leave_out(artifact, report, Reason.REPEATED, is_repeat, [id_column], id_column, schema)


def _is_repeat(number: int, rows: pa.Table, *, stays: KeyTable) -> np.ndarray:
    is_repeated, (file, row) = stays.find(keys.keys_of(rows.column(0)))
    return is_repeated & ~((file == number) & (row == np.arange(rows.num_rows)))


def _smallest_source(paths: Sequence[str], artifact: Artifact, id_column: str, ids: IdSet) -> KeyTable:
    """The place (file, row) of the row that stays, by each repeated id."""
    calls = [
        (group, artifact.run.filesystem, id_column, ids.repeated) for group in file_tasks.groups(list(enumerate(paths)))
    ]
    places = file_tasks.start(_repeats, calls)
    shards = id_sets.shards_for(ids.rows - ids.size + ids.repeated.size)
    stays = file_tasks.start(_first_of_each, [(shard, shards, *places) for shard in range(shards)])
    return KeyTable(tuple(stays), ids.repeated.size)


def _repeats(
    numbered: Sequence[tuple[int, str]], filesystem: pafs.FileSystem, id_column: str, repeated: KeyTable
) -> pa.Table:
    """The places (`_PLACES`) of the rows of some files whose id is repeated."""
    found = [_PLACES.empty_table()]
    for number, path in numbered:
        ids = keys.keys_of(id_sets.read_column(path, filesystem, id_column))
        rows = np.flatnonzero(repeated.find(ids)[0])
        if len(rows):
            sources = id_sets.read_column(path, filesystem, "source").take(pa.array(rows))
            high, low = ids[:, rows]
            places = {"high": high, "low": low, "source": sources, "file": np.full(len(rows), number), "row": rows}
            found.append(pa.table(places).cast(_PLACES))
    return pa.concat_tables(found)


def _first_of_each(shard: int, shards: int, *parts: pa.Table) -> np.ndarray:
    """A shard of the table of which row stays: of each id the first by source, file and row."""
    mine = [part.filter(pa.array(keys.shard_of(_columns(part, "high", "low"), shards) == shard)) for part in parts]
    ordered = pa.concat_tables(mine).sort_by([(name, "ascending") for name in _PLACES.names])
    places = _columns(ordered, "high", "low", "file", "row")
    return places[:, keys.is_first(places)]


def _columns(table: pa.Table, *names: str) -> np.ndarray:
    return np.stack([table[name].to_numpy() for name in names])
