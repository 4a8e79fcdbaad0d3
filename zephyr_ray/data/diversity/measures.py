"""All measures of how different dialogues are, as one value: what diversity.json and the page show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from zephyr_ray.data import marked_text
from zephyr_ray.data.cleaning.folded_words import words_of
from zephyr_ray.data.diversity import neighbours, openings
from zephyr_ray.data.diversity.distinct import Distinct, distinct_at_sizes, words_said
from zephyr_ray.data.diversity.generations import Curve, curves
from zephyr_ray.data.diversity.novel_sum import NovelSum, novel_sum
from zephyr_ray.data.diversity.openings import Opening
from zephyr_ray.data.diversity.topics import characteristic_words, clusters, plane
from zephyr_ray.data.marked_text import Piece

NEAR = 0.9
"""The cosine above which two dialogues are near."""

_PAIRS = 10
_POINTS = 2_000  # dialogues that are drawn
_TOPIC_READ = 2_000  # characters of a dialogue's questions whose words may name its topic
_SHOWN = 160  # characters of an example


class Topic(NamedTuple):
    words: list[str]
    """The most characteristic ones."""
    dialogues: int
    share: float
    example: str
    """The first question of the dialogue nearest to the topic's centre."""


class Point(NamedTuple):
    """A dialogue in the plane of the two largest principal components of all embeddings; from 0 to 1."""

    x: float
    y: float
    topic: int


class NearPair(NamedTuple):
    similarity: float
    first: str
    """Its source."""
    second: str
    first_text: list[Piece]
    second_text: list[Piece]


@dataclass(frozen=True)
class Embedded:
    """What embeddings tell."""

    novel_sum: NovelSum
    nearest: float
    """The cosine of a dialogue with its nearest neighbour, on average."""
    near: float
    """The share of dialogues whose nearest neighbour is nearer than `NEAR`."""
    generations: dict[str, Curve]
    """By method."""
    topics: list[Topic]
    """The largest first."""
    points: list[Point]
    pairs: list[NearPair]
    """The nearest ones first."""


@dataclass(frozen=True)
class Measures:
    dialogues: int
    """All there are."""
    measured: int
    """Those of the sample that everything is measured on."""
    methods: dict[str, int]
    """All dialogues, by method."""
    distinct: dict[str, list[Distinct]]
    """By whose words they are: users, assistant, seeds."""
    openings: dict[int, list[Opening]]
    """By their number of words."""
    embedded: Embedded | None
    """None without embeddings, or with fewer than two dialogues."""


def measure(
    dialogues: pa.Table, seeds: pa.Table | None, vectors: np.ndarray | None, methods: Mapping[str, int], seed: int
) -> Measures:
    """Measures dialogues.

    Args:
        dialogues: A sample of them (`messages`, `source`), not empty.
        seeds: A sample of seeds (`messages`), if there are any.
        vectors: The embeddings of the sample, [n, d], float32, of length 1, if there are any.
        methods: How many dialogues each method made.
        seed: Of the samples of words, of random orders, and of clusters.
    """
    distinct = {
        "users": distinct_at_sizes(words_said(dialogues["messages"], "user"), seed),
        "assistant": distinct_at_sizes(words_said(dialogues["messages"], "assistant"), seed),
    }
    of_seeds: list[str] = []
    if seeds is not None:
        distinct["seeds"] = distinct_at_sizes(words_said(seeds["messages"], "user"), seed)
        of_seeds = [openings.first_message(messages) for messages in seeds["messages"].to_pylist()]
    messages = dialogues["messages"].to_pylist()
    asked = [openings.first_message(each) for each in messages]
    return Measures(
        dialogues=sum(methods.values()),
        measured=len(messages),
        methods=dict(sorted(methods.items())),
        distinct=distinct,
        openings={words: openings.openings(asked, of_seeds, words) for words in openings.LENGTHS},
        embedded=None
        if vectors is None or len(vectors) < 2
        else _embedded(messages, dialogues["source"].to_pylist(), vectors, seed),
    )


def as_json(measures: Measures) -> dict[str, Any]:
    """The numbers, without the texts of pairs and the points of the plot."""
    embedded = measures.embedded
    return {
        "dialogues": measures.dialogues,
        "measured": measures.measured,
        "methods": measures.methods,
        "distinct": {who: [each._asdict() for each in found] for who, found in measures.distinct.items()},
        "openings": {words: [each._asdict() for each in found] for words, found in measures.openings.items()},
        "embedded": None
        if embedded is None
        else {
            "novel_sum": embedded.novel_sum._asdict(),
            "nearest": embedded.nearest,
            "near": {"above": NEAR, "share": embedded.near},
            "generations": {method: curve._asdict() for method, curve in embedded.generations.items()},
            "topics": [topic._asdict() for topic in embedded.topics],
            "pairs": [{"similarity": pair.similarity, "sources": [pair.first, pair.second]} for pair in embedded.pairs],
        },
    }


def _embedded(
    messages: Sequence[Sequence[Mapping[str, str]]], sources: Sequence[str], vectors: np.ndarray, seed: int
) -> Embedded:
    numbers, cosines = neighbours.nearest(vectors)
    labels = clusters(vectors, seed)
    return Embedded(
        novel_sum=novel_sum(vectors),
        nearest=float(cosines.mean(dtype=np.float64)),
        near=float((cosines > NEAR).mean()),
        generations=curves(sources, vectors, seed),
        topics=_topics(messages, vectors, labels),
        points=_points(vectors, labels, seed),
        pairs=[
            NearPair(
                pair.similarity,
                sources[pair.first],
                sources[pair.second],
                *marked_text.differences(_text(messages[pair.first]), _text(messages[pair.second])),
            )
            for pair in neighbours.nearest_pairs(numbers, cosines, _PAIRS)
        ],
    )


def _topics(messages: Sequence[Sequence[Mapping[str, str]]], vectors: np.ndarray, labels: np.ndarray) -> list[Topic]:
    named = characteristic_words([asked_words(each) for each in messages], labels)
    sizes = Counter(labels.tolist())
    found = []
    for label, words in enumerate(named):
        own = np.flatnonzero(labels == label)
        middle = own[int((vectors[own] @ vectors[own].mean(axis=0)).argmax())]
        example = " ".join(openings.first_message(messages[middle]).split())
        found.append(Topic(words, sizes[label], sizes[label] / len(labels), _cut(example)))
    return found


def asked_words(messages: Sequence[Mapping[str, str]]) -> frozenset[str]:
    """The different words of the user's turns, without numbers: what topics are named by."""
    asked = " ".join(message["content"] for message in messages if message["role"] == "user")
    return frozenset(word for word in words_of(asked[:_TOPIC_READ]) if not word.isdigit())


def _points(vectors: np.ndarray, labels: np.ndarray, seed: int) -> list[Point]:
    """Some of the dialogues."""
    where = plane(vectors)
    low, spread = where.min(axis=0), np.ptp(where, axis=0)
    where = np.where(spread > 0, (where - low) / np.where(spread > 0, spread, 1), 0.5)
    drawn = np.random.default_rng(seed).permutation(len(where))[:_POINTS]
    return [Point(float(where[n, 0]), float(where[n, 1]), int(labels[n])) for n in drawn.tolist()]


def _text(messages: Sequence[Mapping[str, str]]) -> str:
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "\u2026"
