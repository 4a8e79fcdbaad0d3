"""Whether dialogues become alike as more of them are made: the similarity of each to the nearest one made before it.

Among more dialogues there is always a nearer one, also where every dialogue is drawn alike. So the same dialogues in
random order are shown beside: where the later ones are alike, those made late lie above that curve.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zephyr_ray.data.diversity.neighbours import nearest_earlier

_POINTS = 20
_LEAST = 10  # dialogues of a point
_TURN = re.compile(r":\d+/(\d+)$")


class Curve(NamedTuple):
    """Cosine similarity to the nearest earlier dialogue, on average, by how many were made."""

    made: list[int]
    """How many dialogues there are at the end of each point's range."""
    in_order: list[float]
    """The means over the ranges, in the order in which the dialogues were planned."""
    shuffled: list[float]
    """The same of the dialogues in random order."""


def method_of(source: str) -> str:
    """The method of a dialogue's `source` (method:teacher:origin)."""
    return source.partition(":")[0]


def order_of(source: str) -> tuple[int, ...]:
    """The place of a dialogue in its method's plan: Magpie's number; round, request and place of an instruction; how
    often a seed was used before (dialogues of different seeds are made at one time)."""
    if turn := _TURN.search(source):
        return (int(turn[1]),)
    parts = source.rpartition(":")[2].split(".")
    if method_of(source) not in ("magpie", "self_instruct") or not all(part.isdecimal() for part in parts):
        return (1,)
    return tuple(map(int, parts))


def curves(sources: Sequence[str], vectors: np.ndarray, seed: int) -> dict[str, Curve]:
    """A curve for each method that made two dialogues and more.

    Args:
        sources: Of the dialogues.
        vectors: Their embeddings, [n, d], float32, of length 1.
        seed: Of the random order.
    """
    places: dict[str, list[int]] = {}
    for place, source in enumerate(sources):
        places.setdefault(method_of(source), []).append(place)
    generator = np.random.default_rng(seed)
    found = {}
    for method, own in sorted(places.items()):
        if len(own) < 2:
            continue
        ordered = sorted(own, key=lambda place: (order_of(sources[place]), sources[place]))
        made, in_order = _means(nearest_earlier(vectors[ordered]))
        _, shuffled = _means(nearest_earlier(vectors[generator.permutation(own)]))
        found[method] = Curve(made, in_order, shuffled)
    return found


def _means(cosines: np.ndarray) -> tuple[list[int], list[float]]:
    """The ends of ranges of dialogues that are as long as one another, and the means over them. The first dialogue has
    none before it."""
    count = len(cosines)
    ends = np.linspace(0, count, max(1, min(_POINTS, count // _LEAST)) + 1).round().astype(int)
    starts = np.maximum(ends[:-1], 1)
    means = [float(cosines[start:end].mean(dtype=np.float64)) for start, end in zip(starts, ends[1:], strict=True)]
    return ends[1:].tolist(), means
