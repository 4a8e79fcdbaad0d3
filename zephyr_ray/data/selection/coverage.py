"""How well chosen dialogues cover all of them: the cosine distance of a dialogue to the nearest chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow.fs as pafs

from zephyr_ray.data.io import file_tasks
from zephyr_ray.data.io.id_sets import KeyTable
from zephyr_ray.data.io.sources import count_rows
from zephyr_ray.data.selection.facility_location import read_vectors
from zephyr_ray.data.selection.highest import hashes
from zephyr_ray.pipeline.artifacts import Artifact

SAMPLE = 5_000
"""Dialogues whose nearest chosen one is looked for, about; all of them, where there are fewer."""
_AT_ONCE = 1 << 14  # chosen ones that the sample is held against at a time


class Coverage(NamedTuple):
    """Cosine distances (1 - similarity, from 0 to 2) of a sample of all dialogues to the nearest chosen one."""

    mean: float
    largest: float


def coverage(embeddings: Artifact, chosen: KeyTable, seed: int) -> Coverage:
    """How well chosen dialogues cover those of an artifact (`schemas.EMBEDDINGS`), on a sample that the seed draws."""
    share = min(1.0, SAMPLE / max(1, count_rows(embeddings)))
    groups = file_tasks.groups(embeddings.files())
    calls = [(group, embeddings.run.filesystem, chosen, share, seed) for group in groups]
    read = file_tasks.start(_sample_and_chosen, calls, results=2)
    [sample] = file_tasks.start(_joined, [tuple(part for part, _ in read)])
    nearest = np.full(0, -np.inf)
    for found in file_tasks.results(_nearest, [(sample, mine) for _, mine in read]):
        nearest = np.maximum(nearest, found) if len(nearest) else found
    return Coverage(float(1 - nearest.mean()), float(1 - nearest.min()))


def _sample_and_chosen(
    paths: Sequence[str], filesystem: pafs.FileSystem, chosen: KeyTable, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of those of some files that are in the sample, and of those that are chosen."""
    ids, vectors = read_vectors(paths, filesystem)
    is_sampled = hashes(ids, seed) <= np.uint64(min(share * 2.0**64, 2.0**64 - 2048))
    return vectors[is_sampled], vectors[chosen.find(ids)[0]]


def _joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


def _nearest(sample: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The similarity of each of a sample to the nearest of some chosen ones ([n]); -inf without any."""
    nearest = np.full(len(sample), -np.inf)
    for start in range(0, len(chosen), _AT_ONCE):
        nearest = np.maximum(nearest, (sample @ chosen[start : start + _AT_ONCE].T).max(axis=1))
    return nearest
