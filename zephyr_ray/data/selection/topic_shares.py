"""Topics of dialogues, and how many of all, of the chosen, and of the drawn ones each has.

Clusters are found and named on a sample (`diversity.sample`); every dialogue then counts for the nearest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from zephyr_ray.data.diversity import sample
from zephyr_ray.data.diversity.measures import asked_words
from zephyr_ray.data.diversity.topics import characteristic_words, clusters
from zephyr_ray.data.io import file_tasks
from zephyr_ray.data.io.id_sets import KeyTable
from zephyr_ray.data.selection.facility_location import read_vectors
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import DIALOGUES, EMBEDDINGS


class TopicShares(NamedTuple):
    """A topic, and its share of the dialogues of each arm."""

    words: list[str]
    """What is characteristic of it."""
    everything: float
    chosen: float
    random: float


def topic_shares(
    dialogues: Artifact, embeddings: Artifact, chosen: KeyTable, random: KeyTable, seed: int
) -> list[TopicShares]:
    """The topics, the largest first.

    Args:
        dialogues: All of them.
        embeddings: Theirs.
        chosen: Ids of those that were chosen.
        random: Of the control arm.
        seed: Of the sample and of the clusters.
    """
    parts = [sample.read(given, schema, seed) for given, schema in ((dialogues, DIALOGUES), (embeddings, EMBEDDINGS))]
    [found] = file_tasks.start(_topics, [(seed, len(parts[0]), *parts[0], *parts[1])])
    names, centres = file_tasks.get([found])[0]
    counts = np.zeros((3, len(names)))
    calls = [
        (paths, embeddings.run.filesystem, centres, chosen, random) for paths in file_tasks.groups(embeddings.files())
    ]
    for counted in file_tasks.results(_count, calls):
        counts += counted
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    order = np.argsort(-counts[0], kind="stable").tolist()
    return [TopicShares(names[topic], *shares[:, topic].tolist()) for topic in order]


def _topics(seed: int, files: int, *tables: pa.Table) -> tuple[list[list[str]], np.ndarray]:
    """The names of the topics of a sample, and their centres ([topics, width])."""
    texts, embeddings = (sample.lowest(pa.concat_tables(each), seed) for each in (tables[:files], tables[files:]))
    points = sample.vectors_of(texts, embeddings)
    labels = clusters(points, seed)
    names = characteristic_words([asked_words(messages) for messages in texts["messages"].to_pylist()], labels)
    return names, np.stack([points[labels == topic].mean(axis=0) for topic in range(len(names))])


def _count(
    paths: Sequence[str], filesystem: pafs.FileSystem, centres: np.ndarray, chosen: KeyTable, random: KeyTable
) -> np.ndarray:
    """How many dialogues of some files have each topic: of all, of the chosen, of the drawn ones ([3, topics])."""
    ids, vectors = read_vectors(paths, filesystem)
    topics = np.argmax(vectors @ centres.T - (centres**2).sum(axis=1) / 2, axis=1)
    arms = np.ones(len(topics), bool), chosen.find(ids)[0], random.find(ids)[0]
    return np.stack([np.bincount(topics[mine], minlength=len(centres)) for mine in arms])
