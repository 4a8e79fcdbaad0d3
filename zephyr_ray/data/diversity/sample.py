"""A sample of an artifact's rows, the same however they lie in files: those whose ids have the lowest seeded hashes.

It is read in tasks on files and stays in the object store.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.data.cleaning.shingles import mix
from zephyr_ray.data.diversity.generations import method_of
from zephyr_ray.data.io import file_tasks
from zephyr_ray.data.io.keys import keys_of
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.sources import count_rows
from zephyr_ray.pipeline.artifacts import Artifact

MOST = 20_000
"""Rows of a sample: the cost of holding all against all grows with its square."""

_ROWS = 4096
_MORE = 1.05  # times as many rows as are wanted pass the bound that is known before they are read
_ALL = (1 << 64) - 1


def read(artifact: Artifact, schema: pa.Schema, seed: int) -> list[Any]:
    """References to tables with about `MOST` rows together, or all where there are no more (`lowest` takes the rest
    away).

    Args:
        artifact: What is read.
        schema: The columns that are read, of which the first is the rows' id: a hash, or any other text.
        seed: Of the sample.
    """
    rows = count_rows(artifact)
    bound = _ALL if rows <= MOST else int(_ALL * min(1.0, _MORE * MOST / rows))
    return file_tasks.start(_read, [(group, artifact, schema, seed, bound) for group in _groups(artifact)])


def lowest(rows: pa.Table, seed: int) -> pa.Table:
    """The `MOST` rows of the lowest hashes, in their order."""
    order = np.argsort(_hashes(rows, seed), kind="stable")
    return rows.take(pa.array(order[:MOST]))


def vectors_of(dialogues: pa.Table, embeddings: pa.Table) -> np.ndarray:
    """The embeddings (`schemas.EMBEDDINGS`) in the order of the dialogues; [n, d], float32."""
    places = pc.index_in(dialogues["dialogue_id"], value_set=embeddings["dialogue_id"].combine_chunks())
    vectors = embeddings["embedding"].combine_chunks().take(places.combine_chunks())
    return vectors.flatten().to_numpy().reshape(len(vectors), -1)


def methods(dialogues: Artifact) -> Counter[str]:
    """How many dialogues each method made."""
    total: Counter[str] = Counter()
    for found in file_tasks.results(_methods, [(group, dialogues) for group in _groups(dialogues)]):
        total.update(found)
    return total


def _groups(artifact: Artifact) -> list[Sequence[str]]:
    return file_tasks.groups([entry.name for entry in artifact.entries()])


def _read(names: Sequence[str], artifact: Artifact, schema: pa.Schema, seed: int, bound: int) -> pa.Table:
    found = [schema.empty_table()]
    for name in names:
        with open_parquet(posixpath.join(artifact.path, name), artifact.run.filesystem) as file:
            for batch in file.iter_batches(_ROWS, columns=schema.names):
                rows = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
                found.append(rows.filter(pa.array(_hashes(rows, seed) <= np.uint64(bound))))
    return pa.concat_tables(found)


def _methods(names: Sequence[str], artifact: Artifact) -> Counter[str]:
    total: Counter[str] = Counter()
    for name in names:
        with open_parquet(posixpath.join(artifact.path, name), artifact.run.filesystem) as file:
            heads = pc.list_element(pc.split_pattern(file.read(["source"])["source"], ":", max_splits=1), 0)
        total.update({method_of(each["values"]): each["counts"] for each in pc.value_counts(heads).to_pylist()})
    return total


def _hashes(rows: pa.Table, seed: int) -> np.ndarray:
    """Of the first column's ids; [n], uint64."""
    salt = mix(np.array([seed], np.uint64) + np.uint64(1))
    return mix(keys_of(rows.column(0))[0] ^ salt)
