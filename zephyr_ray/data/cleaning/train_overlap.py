"""Drop held-out rows whose prompt occurs in the rows that are trained on.

Prompts are equal if their normalized messages are, whatever their layouts. Both are read in tasks, and of the training
rows nothing but the prompts; what tasks share is the ids of prompts, 16 bytes each.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

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
from zephyr_ray.schemas import DROPPED, Reason


def _whole(messages: Any) -> Any:
    return messages


def _opening(messages: Any) -> Any:
    """The messages before the assistant's first."""
    answers = (index for index, message in enumerate(messages) if message["role"] == "assistant")
    return messages[: next(answers, len(messages))]


class Prompts(NamedTuple):
    """Where rows have their prompts."""

    column: str
    """Messages."""
    of: Callable[[Any], Any]
    """Those messages -> the prompt's."""
    id_column: str


PAIRS = Prompts("prompt", _whole, "pair_id")
"""Of `schemas.PREFERENCES`."""
OPENINGS = Prompts("messages", _opening, "dialogue_id")
"""Of `schemas.DIALOGUES`: what was said before the first answer."""


def drop_in_training(
    artifact: Artifact, report: Report, trained_on: Artifact, prompts: Prompts = PAIRS, schema: pa.Schema = DROPPED
) -> Report:
    """Moves rows whose prompt is one of `trained_on`'s from data/ to dropped/, where rows have this schema.

    Raises:
        RuntimeError: Not every row of `trained_on` was read.
    """
    paths = [posixpath.join(artifact.path, name) for name in kept_files(report.files)]
    calls = [(group, artifact.run.filesystem, prompts) for group in file_tasks.groups(paths)]
    held_out = id_sets.of_keys(file_tasks.start(_prompt_keys, calls, results=2))
    looked = file_tasks.start(
        _look_up,
        [(group, trained_on.run.filesystem, prompts, held_out) for group in file_tasks.groups(trained_on.files())],
        results=3,
    )
    sources.check_all_read(trained_on, sum(file_tasks.get([rows for *_, rows in looked])))
    trained = id_sets.of_keys([(found, count) for found, count, _ in looked])
    is_trained_on = functools.partial(_is_trained_on, trained=trained, prompts=prompts)
    return leave_out(artifact, report, Reason.IN_TRAINING, is_trained_on, [prompts.column], prompts.id_column, schema)


def prompt_ids(table: pa.Table | pa.RecordBatch, prompts: Prompts = PAIRS) -> list[str]:
    """The hash of each row's prompt messages."""
    return [content_id(prompts.of(messages)) for messages in table.column(prompts.column).to_pylist()]


def _is_trained_on(_: int, rows: pa.Table, *, trained: KeyTable, prompts: Prompts) -> np.ndarray:
    return trained.find(_keys(rows, prompts))[0]


def _prompt_keys(paths: Sequence[str], filesystem: pafs.FileSystem, prompts: Prompts) -> tuple[np.ndarray, int]:
    """The sorted keys of the prompts in some files, and how many they are."""
    found = keys.sorted_keys(np.concatenate(list(_read(paths, filesystem, prompts)), axis=1))
    return found, found.shape[1]


def _look_up(
    paths: Sequence[str], filesystem: pafs.FileSystem, prompts: Prompts, held_out: KeyTable
) -> tuple[np.ndarray, int, int]:
    """The sorted keys of the prompts in some files that are held out, how many they are, and the number of rows."""
    found, rows = [np.empty((2, 0), np.uint64)], 0
    for each in _read(paths, filesystem, prompts):
        rows += each.shape[1]
        found.append(each[:, held_out.find(each)[0]])
    ordered = keys.sorted_keys(np.concatenate(found, axis=1))
    once = ordered[:, keys.is_first(ordered)]
    return once, once.shape[1], rows


def _read(paths: Sequence[str], filesystem: pafs.FileSystem, prompts: Prompts) -> Iterator[np.ndarray]:
    """The keys of the prompts in some files, some rows at a time."""
    for path in paths:
        with open_parquet(path, filesystem) as file:
            for rows in file.iter_batches(columns=[prompts.column]):
                yield _keys(rows, prompts)


def _keys(rows: pa.Table | pa.RecordBatch, prompts: Prompts) -> np.ndarray:
    return keys.keys_of(pa.array(prompt_ids(rows, prompts), pa.string()))
