"""The nearest neighbours of embeddings, exactly: by products of blocks, so that memory is bounded.

Embeddings are [n, d], float32, of length 1, so that a product of two is the cosine of their angle. The cost is n^2 d.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_BLOCK = 512  # rows of products that are in memory at a time


class Pair(NamedTuple):
    """Two texts, by their numbers, and the cosine of their embeddings."""

    first: int
    second: int
    similarity: float


def nearest(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other vector of each one: its number ([n], int64) and the cosine ([n], float32).

    Raises:
        ValueError: There are fewer than two vectors.
    """
    if len(vectors) < 2:
        raise ValueError("one vector has no neighbour")
    numbers, cosines = np.empty(len(vectors), np.int64), np.empty(len(vectors), np.float32)
    for rows in blocks(len(vectors)):
        products = vectors[rows] @ vectors.T
        own = np.arange(rows.stop - rows.start)
        products[own, rows.start + own] = -np.inf
        numbers[rows] = products.argmax(axis=1)
        cosines[rows] = products[own, numbers[rows]]
    return numbers, cosines


def nearest_earlier(vectors: np.ndarray) -> np.ndarray:
    """The cosine of each vector with the nearest one before it; [n], float32, of which the first is not a number."""
    cosines = np.full(len(vectors), np.nan, np.float32)
    for rows in blocks(len(vectors)):
        products = vectors[rows] @ vectors[: rows.stop].T
        numbers = np.arange(rows.stop)
        products[numbers[None, :] >= numbers[rows, None]] = -np.inf
        first = 1 if rows.start == 0 else 0
        cosines[rows.start + first : rows.stop] = products[first:].max(axis=1)
    return cosines


def nearest_pairs(numbers: np.ndarray, cosines: np.ndarray, most: int) -> list[Pair]:
    """The nearest pairs of what `nearest` found, the nearest first. A vector is in one pair at most, so that many equal
    ones do not fill the list."""
    pairs: list[Pair] = []
    seen: set[int] = set()
    for number in np.argsort(-cosines, kind="stable").tolist():
        other = int(numbers[number])
        if len(pairs) < most and not {number, other} & seen:
            seen |= {number, other}
            pairs.append(Pair(min(number, other), max(number, other), float(cosines[number])))
    return pairs


def blocks(rows: int) -> Iterator[slice]:
    """Ranges of rows that are small enough to be held against all of them."""
    for start in range(0, rows, _BLOCK):
        yield slice(start, min(start + _BLOCK, rows))
