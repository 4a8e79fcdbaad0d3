"""An artifact's rows under the numbers 0, 1, 2, ... in the order of their ids, however they lie in files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from zephyr_ray.data.io import file_tasks, id_sets, keys
from zephyr_ray.data.io.id_sets import KeyTable
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.rewrite import kept_files
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact

_TASKS = 256  # over the files of an artifact; with more files each task reads several
_BATCH = 2048  # rows that are read at a time


@dataclass(frozen=True)
class NumberedRows:
    """Small and picklable: the numbers are in the object store, 24 bytes to a row."""

    filesystem: pafs.FileSystem
    id_column: str
    numbers: KeyTable

    def __len__(self) -> int:
        return self.numbers.size

    def number(self, ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """The number of each id ([n], int64)."""
        return self.numbers.find(keys.keys_of(ids))[1][0].astype(np.int64)

    def read(self, paths: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """Rows of some files, some at a time: their numbers, and the columns asked for."""
        for path in paths:
            with open_parquet(path, self.filesystem) as file:
                for rows in file.iter_batches(batch_size=_BATCH, columns=[self.id_column, *columns]):
                    yield self.number(rows.column(self.id_column)), rows.select(list(columns))


def numbered(artifact: Artifact, report: Report, id_column: str) -> tuple[NumberedRows, list[Sequence[str]]]:
    """The kept rows of an artifact, and the paths of their files as tasks read them.

    Raises:
        ValueError: An id is there twice.
    """
    paths = [posixpath.join(artifact.path, name) for name in kept_files(report.files)]
    filesystem = artifact.run.filesystem
    ids = id_sets.of_files(paths, filesystem, id_column)
    if ids.repeated.size:
        raise ValueError(f"{artifact.path} holds {ids.repeated.size} ids several times; drop repeated rows first")
    sizes = file_tasks.get(file_tasks.start(_size, [(shard,) for shard in ids.shards]))
    firsts = np.cumsum([0, *sizes]).tolist()
    shards = file_tasks.start(_numbered, list(zip(firsts, ids.shards, strict=False)))
    return NumberedRows(filesystem, id_column, KeyTable(tuple(shards), ids.size)), _divided(paths)


def _divided(paths: Sequence[str]) -> list[Sequence[str]]:
    """A file to a task, where there are not too many: looking at text costs more than starting a task."""
    count = min(len(paths), _TASKS)
    return [paths[len(paths) * each // count : len(paths) * (each + 1) // count] for each in range(count)]


def _size(ordered: np.ndarray) -> int:
    return int(ordered.shape[1])


def _numbered(first: int, ordered: np.ndarray) -> np.ndarray:
    return np.concatenate([ordered, [np.arange(first, first + ordered.shape[1], dtype=np.uint64)]])
