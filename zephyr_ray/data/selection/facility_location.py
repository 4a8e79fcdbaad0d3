"""Varied dialogues that stand for all: those to which the dialogues are nearest on average (facility location).

Of a set of chosen rows the value is the sum, over a sample of all rows, of the similarity to the nearest chosen one. It
is submodular, and the row that adds most to it among a few that are drawn is taken, again and again (Mirzasoleiman et
al., "Lazier than lazy greedy", arXiv 1409.7938, algorithm 1), which comes within 1 - 1/e - EPSILON of the best value in
expectation. It takes rows * SAMPLE * ln(1 / EPSILON) similarities, whatever n is.

Many rows are first thinned out in shards, by the hash of their id, each of which offers twice its share (as in the same
authors' arXiv 1411.0541): no task holds all vectors. Choosing the farthest row each time (k-center) was tried first: it
takes outliers, and covers real dialogues less well on average than rows drawn at random (docs/selection.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from zephyr_ray.data.io import file_tasks, keys
from zephyr_ray.data.io.id_sets import KeyTable
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.sources import count_rows
from zephyr_ray.pipeline.artifacts import Artifact

SAMPLE = 2048
"""Rows that the value is computed on; all, where there are fewer."""
EPSILON = 0.01
SHARD_ROWS = 1 << 16
"""Vectors that one task holds, about: 96 MiB of 384 numbers each."""
_OFFERED = 2  # how much more than its share a shard offers

Vectors = tuple[np.ndarray, np.ndarray]
"""Keys ([2, rows]) and vectors of length 1 ([rows, width], float32)."""


def representative_rows(embeddings: Artifact, n: int, seed: int) -> KeyTable:
    """The ids of n varied rows (of all, where there are not more), however the rows lie in files."""
    rows = count_rows(embeddings)
    shards = 1 << max(0, (rows - 1) // SHARD_ROWS).bit_length()
    calls = [(group, embeddings.run.filesystem, shards) for group in file_tasks.groups(embeddings.files())]
    # One result more than there are shards: a single one would come without a list.
    read = file_tasks.start(_read_shards, calls, results=shards + 1)
    offers = n if shards == 1 else min(n, -(-_OFFERED * n // shards))
    sampled = -(-SAMPLE // shards)
    of_shards = [(offers, seed, sampled, *(each[shard] for each in read)) for shard in range(shards)]
    offered = file_tasks.start(_offer, of_shards)
    [(chosen, count)] = file_tasks.start(_choose, [(n, seed, *offered)], results=2)
    return KeyTable((chosen,), *file_tasks.get([count]))


def choose(vectors: np.ndarray, sample: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The places of n of some rows, in the order in which they are chosen.

    Args:
        vectors: Of length 1 ([rows, width], float32), at least n.
        sample: The vectors that they are to stand for ([sampled, width], float32).
        n: How many.
        seed: Of the rows that are drawn for each choice.
    """
    generator = np.random.default_rng(seed)
    drawn = math.ceil(len(vectors) / n * math.log(1 / EPSILON))
    nearest = np.full(len(sample), -1, np.float32)  # the similarity of each to the nearest chosen row
    left = np.arange(len(vectors))
    chosen = np.empty(n, np.int64)
    for number in range(n):
        among = generator.choice(len(left), min(drawn, len(left)), replace=False)
        similarity = vectors[left[among]] @ sample.T
        best = int(np.argmax(np.maximum(similarity, nearest).sum(axis=1)))
        nearest = np.maximum(nearest, similarity[best])
        chosen[number] = left[among[best]]
        left[among[best]] = left[-1]
        left = left[:-1]
    return chosen


def read_vectors(paths: Sequence[str], filesystem: pafs.FileSystem) -> Vectors:
    """The keys and vectors of files of `schemas.EMBEDDINGS`."""
    tables = []
    for path in paths:
        with open_parquet(path, filesystem) as file:
            tables.append(file.read(["dialogue_id", "embedding"]))
    table = pa.concat_tables(tables)
    flat = pc.list_flatten(table["embedding"]).to_numpy()
    return keys.keys_of(table["dialogue_id"]), flat.reshape(table.num_rows, -1)


def _read_shards(paths: Sequence[str], filesystem: pafs.FileSystem, shards: int) -> list[Vectors | None]:
    """The rows of some files in each shard, and a last result that says nothing."""
    ids, vectors = read_vectors(paths, filesystem)
    of_row = keys.shard_of(ids, shards)
    return [*((ids[:, of_row == shard], vectors[of_row == shard]) for shard in range(shards)), None]


def _offer(n: int, seed: int, sampled: int, *parts: Vectors) -> tuple[Vectors, np.ndarray]:
    """What a shard offers: n of its rows; and a sample of them all."""
    ids, vectors = _joined(parts)
    sample = vectors[np.random.default_rng(seed).permutation(len(vectors))[:sampled]]
    return _chosen(n, seed, ids, vectors, sample), sample


def _choose(n: int, seed: int, *offered: tuple[Vectors, np.ndarray]) -> tuple[np.ndarray, int]:
    """The sorted keys of n of the rows that shards offer (`_offer`), and how many they are."""
    ids, vectors = _joined([rows for rows, _ in offered])
    found, _ = _chosen(n, seed, ids, vectors, np.concatenate([sample for _, sample in offered]))
    return found, found.shape[1]


def _chosen(n: int, seed: int, ids: np.ndarray, vectors: np.ndarray, sample: np.ndarray) -> Vectors:
    if len(vectors) <= n:
        return ids, vectors
    places = np.sort(choose(vectors, sample, n, seed))
    return ids[:, places], vectors[places]


def _joined(parts: Sequence[Vectors]) -> Vectors:
    """The rows of some parts in the order of their keys."""
    ids = np.concatenate([each for each, _ in parts], axis=1)
    order = np.lexsort((ids[1], ids[0]))
    return ids[:, order], np.concatenate([each for _, each in parts])[order]
