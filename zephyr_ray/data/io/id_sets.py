"""The ids of an artifact's rows in Ray's object store, as sorted keys that tasks on a machine share without a copy.

The driver holds references and counts: reading, sorting and looking up happen in tasks, 16 bytes to an id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from zephyr_ray.data.io import file_tasks, keys
from zephyr_ray.data.io.readers import open_parquet

if TYPE_CHECKING:
    import ray

_SHARD_KEYS = 1 << 22  # keys that one task sorts: 64 MiB


@dataclass(frozen=True)
class KeyTable:
    """A table of `keys` in the object store; small and picklable, and whoever has it can look keys up."""

    shards: tuple[ray.ObjectRef, ...] = ()
    size: int = 0

    def find(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `keys.find`."""
        import ray

        if not self.size:
            return np.zeros(wanted.shape[1], bool), np.zeros((0, wanted.shape[1]), np.uint64)
        return keys.find(ray.get(list(self.shards)), wanted)

    def has(self, ids: pa.ChunkedArray) -> np.ndarray:
        """Whether each id is there ([n], bool)."""
        return self.find(keys.keys_of(ids))[0]


@dataclass(frozen=True)
class IdSet(KeyTable):
    """Ids, each once, and those among them that were there several times."""

    repeated: KeyTable = KeyTable()
    rows: int = 0
    """All ids that went in."""

    def __len__(self) -> int:
        return self.rows


def of_files(paths: Sequence[str], filesystem: pafs.FileSystem, id_column: str) -> IdSet:
    """The ids in a column of Parquet files."""
    calls = [(group, filesystem, id_column) for group in file_tasks.groups(paths)]
    return of_keys(file_tasks.start(_read_keys, calls, results=2))


def of_keys(parts: Sequence[Sequence[ray.ObjectRef]]) -> IdSet:
    """The ids of several (sorted keys, how many they are)."""
    if not parts:
        return IdSet()
    rows = sum(file_tasks.get([count for _, count in parts]))
    shards = shards_for(rows)
    calls = [(shard, shards, *(part for part, _ in parts)) for shard in range(shards)]
    merged = file_tasks.start(_merge, calls, results=3)
    counts = np.array(file_tasks.get([sizes for _, _, sizes in merged]))
    repeated = KeyTable(tuple(each for _, each, _ in merged), int(counts[:, 1].sum()))
    return IdSet(tuple(each for each, _, _ in merged), int(counts[:, 0].sum()), repeated, rows)


def shards_for(rows: int) -> int:
    """In how many shards so many keys are sorted: a power of two."""
    return 1 << max(0, (rows - 1) // _SHARD_KEYS).bit_length()


def _read_keys(paths: Sequence[str], filesystem: pafs.FileSystem, id_column: str) -> tuple[np.ndarray, int]:
    """The sorted keys of the ids in some files, and how many they are."""
    parts = [keys.keys_of(read_column(path, filesystem, id_column)) for path in paths]
    found = keys.sorted_keys(np.concatenate(parts, axis=1))
    return found, found.shape[1]


def read_column(path: str, filesystem: pafs.FileSystem, column: str) -> pa.ChunkedArray:
    """A column of a Parquet file."""
    with open_parquet(path, filesystem) as file:
        return file.read([column])[column]


def _merge(shard: int, shards: int, *parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """A shard's keys, each once; those that are there several times; and how many both are."""
    ordered = keys.sorted_keys(np.concatenate([keys.of_shard(part, shard, shards) for part in parts], axis=1))
    first = keys.is_first(ordered)
    again = ordered[:, ~first]
    repeated = again[:, keys.is_first(again)]
    each = ordered[:, first]
    return each, repeated, (each.shape[1], repeated.shape[1])
