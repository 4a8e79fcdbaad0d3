"""Pairs of similar rows of an artifact: candidates that share a band of their signatures, then their shingles compared.

All of it happens in tasks. The bands of all rows are sorted in shards, 16 bytes to a band, and shingles are made of
candidates only; both lie in the object store, which spills to the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from zephyr_ray.data.cleaning import row_pairs
from zephyr_ray.data.cleaning.minhash import Bands, band_keys, bands_for
from zephyr_ray.data.cleaning.numbered_rows import NumberedRows
from zephyr_ray.data.cleaning.shingles import Shingles, distinct, joined, shingles, unique_shingles
from zephyr_ray.data.io import file_tasks, id_sets, keys

if TYPE_CHECKING:
    import ray

_COMPARED = 8
"""Rows of a bucket (rows that share a band) that every other one of it is compared with: all pairs of a bucket of up to
nine rows, and no more than eight for each row of a larger one, whose rows have a template in common. Two rows that are
together in no smaller bucket, and each unlike the eight, are missed."""

_SHINGLE_BYTES = 1 << 23  # that one task compares, for which it holds four times as much
_PIECE_BYTES = 160_000
"""That it gets of each task on files, where these are many: Ray keeps in the driver what has less than 100 kB."""
_BAND_SHARDS = 16
"""Shards of bands that there may be for the sake of memory alone: as many tasks on files as there may be make each of
them. Beyond, a shard has as many bands as `id_sets` has keys in one."""


@dataclass(frozen=True)
class Pairs:
    """Pairs in the object store, in sorted arrays of which several may have the same pair, and how many they are."""

    parts: tuple[ray.ObjectRef, ...]
    count: int


@dataclass(frozen=True)
class Compared:
    """Similar pairs in the object store: arrays (pairs [n], sorted; Jaccard similarity [n]), each pair once."""

    parts: tuple[ray.ObjectRef, ...] = ()
    count: int = 0
    """Similar pairs."""
    looked_at: int = 0
    """Pairs whose similarity was computed."""


def candidates(rows: NumberedRows, files: Sequence[Sequence[str]], threshold: float, words: int) -> tuple[Pairs, float]:
    """Pairs of rows that share a band of their signatures, and the mean number of a row's shingles."""
    bands = bands_for(threshold)
    shards = _band_shards(len(rows) * bands.count)
    calls = [(rows, paths, words, bands, shards) for paths in files]
    made = file_tasks.start(_bands_of_files, calls, results=shards + 1)
    found = file_tasks.start(_pairs_of_buckets, [tuple(each[shard] for each in made) for shard in range(shards)], 2)
    shingle_count = sum(file_tasks.get([each[-1] for each in made]))
    count = sum(file_tasks.get([each for _, each in found]))
    return Pairs(tuple(pairs for pairs, _ in found), count), shingle_count / max(1, len(rows))


def compare(
    rows: NumberedRows,
    files: Sequence[Sequence[str]],
    pairs: Pairs,
    threshold: float,
    words: int,
    mean_shingles: float,
) -> Compared:
    """Those of some pairs whose shingles' Jaccard similarity is at least the threshold."""
    if not pairs.count:
        return Compared()
    size = min(len(rows), 2 * pairs.count) * mean_shingles * np.dtype(np.uint64).itemsize
    parts = int(size // max(_SHINGLE_BYTES, _PIECE_BYTES * len(files))) + 1
    calls = [(part, parts, len(rows), *pairs.parts) for part in range(parts)]
    divided = file_tasks.start(_part_of_pairs, calls, results=2)
    [wanted] = file_tasks.start(_together, [tuple(numbers for _, numbers in divided)])
    sets = file_tasks.start(_shingles_of_files, [(rows, paths, words, wanted) for paths in files], results=parts + 1)
    calls = [(threshold, mine, *(each[part] for each in sets)) for part, (mine, _) in enumerate(divided)]
    compared = file_tasks.start(_compared, calls, results=2)
    counts = np.array(file_tasks.get([each for _, each in compared]))
    return Compared(tuple(each for each, _ in compared), *counts.sum(axis=0).tolist())


def _band_shards(count: int) -> int:
    """In how many shards so many bands are sorted: a power of two. A task holds five times the bytes of its shard."""
    return max(id_sets.shards_for(count), min(_BAND_SHARDS, id_sets.shards_for(4 * count)))


def _bands_of_files(rows: NumberedRows, paths: Sequence[str], words: int, bands: Bands, shards: int) -> list:
    """The sorted bands ([2, n]: key, row) of some files in each shard, and the number of shingles."""
    found, count = [np.empty((2, 0), np.uint64)], 0
    for numbers, batch in rows.read(paths, ["messages"]):
        made = shingles(batch.column("messages"), words)
        has_words = np.diff(made.offsets) > 0
        of_rows = band_keys(made, bands)[has_words]
        found.append(np.stack([of_rows.ravel(), np.repeat(numbers[has_words].astype(np.uint64), bands.count)]))
        count += len(made.hashes)
    ordered = keys.sorted_keys(np.concatenate(found, axis=1))
    return [*(keys.of_shard(ordered, shard, shards) for shard in range(shards)), count]


def _pairs_of_buckets(*parts: np.ndarray) -> tuple[np.ndarray, int]:
    """The pairs of a shard's buckets, the rows with the same key, and how many they are."""
    bands, numbers = keys.sorted_keys(np.concatenate(parts, axis=1))
    is_first = np.append(True, bands[1:] != bands[:-1])[: len(bands)]
    starts = np.flatnonzero(is_first)
    place = np.arange(len(bands))
    first = starts[np.cumsum(is_first) - 1]  # of each row's bucket
    found = [np.empty(0, np.uint64)]
    after = place
    for ahead in range(_COMPARED):
        after = after[after > first[after] + ahead]
        found.append(row_pairs.paired(numbers[first[after] + ahead], numbers[after]))
    pairs = distinct(np.concatenate(found))
    return pairs, len(pairs)


def _part_of_pairs(part: int, parts: int, rows: int, *pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of a part, each once and sorted, and the numbers of their rows, likewise."""
    mine = distinct(np.concatenate([row_pairs.part_of(each, part, parts, rows) for each in pairs]))
    return mine, distinct(np.concatenate(row_pairs.numbers_of(mine)))


def _together(*arrays: np.ndarray) -> list[np.ndarray]:
    """Arrays as one object: small ones would be copied into the description of every task that gets them."""
    return list(arrays)


def _shingles_of_files(rows: NumberedRows, paths: Sequence[str], words: int, wanted: Sequence[np.ndarray]) -> list:
    """For each part the numbers of its rows in some files and their shingles, and how many rows have some."""
    everything = distinct(np.concatenate(wanted))
    numbers, sets = [np.empty(0, np.int64)], []
    for found, batch in rows.read(paths, ["messages"]):
        is_wanted = np.isin(found, everything, kind="sort")
        if is_wanted.any():
            numbers.append(found[is_wanted])
            sets.append(unique_shingles(batch.column("messages").filter(pa.array(is_wanted)), words))
    here, all_sets = np.concatenate(numbers), joined(sets)
    places = [np.flatnonzero(np.isin(here, each, kind="sort")) for each in wanted]
    return [*((here[each], all_sets.take(each)) for each in places), len(here)]


def _compared(
    threshold: float, pairs: np.ndarray, *parts: tuple[np.ndarray, Shingles]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[int, int]]:
    """A part of `Compared`, and the two counts."""
    numbers, sets = np.concatenate([here for here, _ in parts]), joined(each for _, each in parts)
    similarity = row_pairs.jaccard(pairs, numbers, sets)
    is_near = similarity >= threshold
    return (pairs[is_near], similarity[is_near]), (int(is_near.sum()), len(pairs))
