"""The rows with the highest scores, and any rows by seed: the same ones however the rows lie in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from zephyr_ray.data.cleaning.shingles import mix
from zephyr_ray.data.io import file_tasks, keys
from zephyr_ray.data.io.id_sets import KeyTable
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import ASPECTS

Score = Callable[[pa.Table], np.ndarray]
"""Rows (the columns asked for) -> a score for each ([n], float64), NaN where there is none. Called in tasks."""


def highest(artifact: Artifact, id_column: str, columns: Sequence[str], score: Score, n: int, seed: int) -> KeyTable:
    """The ids of the n rows with the highest scores (of all, where there are not more).

    Args:
        artifact: The rows, each id once.
        id_column: Theirs.
        columns: What `score` wants to see of a row.
        score: What is high. Rows without a score come last.
        n: How many rows.
        seed: Decides between rows with the same score.
    """
    groups = file_tasks.groups(artifact.files())
    calls = [(group, artifact.run.filesystem, id_column, columns, score, n, seed) for group in groups]
    [(found, count)] = file_tasks.start(_merged, [(n, seed, *file_tasks.start(_of_files, calls))], results=2)
    return KeyTable((found,), *file_tasks.get([count]))


def any_rows(artifact: Artifact, id_column: str, n: int, seed: int) -> KeyTable:
    """The ids of n rows that the seed decides on (of all, where there are not more)."""
    return highest(artifact, id_column, (), _all_alike, n, seed)


def hashes(ids: np.ndarray, seed: int) -> np.ndarray:
    """Uniform 64-bit numbers ([n]) from keys ([2, n]) and a seed."""
    salt = mix(np.array([seed], np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    return mix(ids[0] ^ mix(ids[1] + salt))


def _all_alike(rows: pa.Table) -> np.ndarray:
    return np.zeros(rows.num_rows)


def _of_files(
    paths: Sequence[str],
    filesystem: pafs.FileSystem,
    id_column: str,
    columns: Sequence[str],
    score: Score,
    n: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for path in paths:
        with open_parquet(path, filesystem) as file:
            rows = file.read([id_column, *columns])
        parts.append((keys.keys_of(rows[id_column]), score(rows)))
    return _highest(n, seed, parts)


def _merged(n: int, seed: int, *parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, int]:
    """The sorted keys of the rows with the highest scores, and how many they are."""
    found = keys.sorted_keys(_highest(n, seed, parts)[0])
    return found, found.shape[1]


def _highest(n: int, seed: int, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Keys ([2, at most n]) and scores of the rows with the highest scores."""
    ids = np.concatenate([np.empty((2, 0), np.uint64), *(each for each, _ in parts)], axis=1)
    scores = np.concatenate([np.empty(0), *(each for _, each in parts)])
    order = np.lexsort((hashes(ids, seed), -np.nan_to_num(scores, nan=-np.inf)))[:n]
    return ids[:, order], scores[order]


def answer_characters(rows: pa.Table) -> np.ndarray:
    """Characters of the assistant's turns of each row's `messages` ([n], float64)."""
    lists = rows["messages"].combine_chunks()
    flat = pc.list_flatten(lists)
    lengths = pc.utf8_length(pc.struct_field(flat, "content")).to_numpy(zero_copy_only=False)
    is_answer = pc.equal(pc.struct_field(flat, "role"), "assistant").to_numpy(zero_copy_only=False)
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    return np.bincount(parents, weights=lengths * is_answer, minlength=len(lists)).astype(np.float64)


def column_score(rows: pa.Table) -> np.ndarray:
    """The column `score` of dialogues."""
    return _numbers(rows["score"])


def overall_rating(rows: pa.Table) -> np.ndarray:
    """The overall rating of the only answer of each row of judgments ([n], float64), NaN without one."""
    return _numbers(pc.struct_field(_only_answers(rows), "overall_score"))


def mean_rating(rows: pa.Table) -> np.ndarray:
    """The mean rating, by aspects, of the only answer of each row of judgments ([n], float64), NaN without any."""
    answers = _only_answers(rows)
    ratings = np.stack([_numbers(pc.struct_field(answers, ["annotations", each, "rating"])) for each in ASPECTS])
    given = np.isfinite(ratings)
    sums, counts = np.where(given, ratings, 0).sum(axis=0), given.sum(axis=0)
    return np.divide(sums, counts, out=np.full(len(answers), np.nan), where=counts > 0)


def _only_answers(rows: pa.Table) -> pa.ChunkedArray:
    answers = pc.list_flatten(rows["completions"])
    if len(answers) != rows.num_rows:
        raise ValueError(f"{rows.num_rows} rows have {len(answers)} answers; each should have one")
    return answers


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False).astype(np.float64)
