"""Drop held-out pairs whose prompt occurs in the training preferences.

Prompts are equal if their normalized messages are, whatever their layouts. Both are read in tasks, and of the training
preferences nothing but the prompts; what tasks share is the ids of prompts, 16 bytes each.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from zephyr_ray.data.io import file_tasks, id_sets, keys, sources
from zephyr_ray.data.io.id_sets import KeyTable
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.rewrite import kept_files, leave_out
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import Reason


def drop_in_training(artifact: Artifact, report: Report, trained_on: Artifact) -> Report:
    """Moves pairs whose prompt is one of `trained_on`'s (`schemas.PREFERENCES`) from data/ to dropped/.

    Raises:
        RuntimeError: Not every row of `trained_on` was read.
    """
    paths = [posixpath.join(artifact.path, name) for name in kept_files(report.files)]
    calls = [(group, artifact.run.filesystem) for group in file_tasks.groups(paths)]
    held_out = id_sets.of_keys(file_tasks.start(_prompt_keys, calls, results=2))
    looked = file_tasks.start(
        _look_up,
        [(group, trained_on.run.filesystem, held_out) for group in file_tasks.groups(trained_on.files())],
        results=3,
    )
    sources.check_all_read(trained_on, sum(file_tasks.get([rows for *_, rows in looked])))
    trained = id_sets.of_keys([(found, count) for found, count, _ in looked])
    is_trained_on = functools.partial(_is_trained_on, trained=trained)
    return leave_out(artifact, report, Reason.IN_TRAINING, is_trained_on, ["prompt"], "pair_id")


def prompt_ids(table: pa.Table | pa.RecordBatch) -> list[str]:
    """The hash of each row's prompt messages."""
    return [content_id(messages) for messages in table.column("prompt").to_pylist()]


def _is_trained_on(_: int, rows: pa.Table, *, trained: KeyTable) -> np.ndarray:
    return trained.find(_keys(rows))[0]


def _prompt_keys(paths: Sequence[str], filesystem: pafs.FileSystem) -> tuple[np.ndarray, int]:
    """The sorted keys of the prompts in some files, and how many they are."""
    found = keys.sorted_keys(np.concatenate(list(_read(paths, filesystem)), axis=1))
    return found, found.shape[1]


def _look_up(paths: Sequence[str], filesystem: pafs.FileSystem, held_out: KeyTable) -> tuple[np.ndarray, int, int]:
    """The sorted keys of the prompts in some files that are held out, how many they are, and the number of rows."""
    found, rows = [np.empty((2, 0), np.uint64)], 0
    for prompts in _read(paths, filesystem):
        rows += prompts.shape[1]
        found.append(prompts[:, held_out.find(prompts)[0]])
    ordered = keys.sorted_keys(np.concatenate(found, axis=1))
    each = ordered[:, keys.is_first(ordered)]
    return each, each.shape[1], rows


def _read(paths: Sequence[str], filesystem: pafs.FileSystem) -> Iterator[np.ndarray]:
    """The keys of the prompts in some files, some rows at a time."""
    for path in paths:
        with open_parquet(path, filesystem) as file:
            for rows in file.iter_batches(columns=["prompt"]):
                yield _keys(rows)


def _keys(rows: pa.Table | pa.RecordBatch) -> np.ndarray:
    return keys.keys_of(pa.array(prompt_ids(rows), pa.string()))
