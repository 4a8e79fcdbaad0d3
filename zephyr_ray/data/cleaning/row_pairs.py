"""Pairs of rows' numbers, each as one 64-bit number, and the Jaccard similarity of their shingles."""

from __future__ import annotations

import itertools

import numpy as np

from zephyr_ray.data.cleaning.shingles import Shingles

_BITS = np.uint64(32)  # of a row's number


def paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairs ([n], uint64) of rows' numbers, in either order: the larger number, then the smaller one."""
    return (np.maximum(first, second).astype(np.uint64) << _BITS) | np.minimum(first, second).astype(np.uint64)


def numbers_of(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The larger ([n], int64) and the smaller number of each pair."""
    return (pairs >> _BITS).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)


def part_of(pairs: np.ndarray, part: int, parts: int, rows: int) -> np.ndarray:
    """Of sorted pairs those of one of so many parts, without a copy: all pairs of a larger number are in one part."""
    edges = np.array([rows * part // parts, rows * (part + 1) // parts], np.uint64) << _BITS
    first, end = np.searchsorted(pairs, edges)
    return pairs[first:end]


def jaccard(pairs: np.ndarray, numbers: np.ndarray, sets: Shingles) -> np.ndarray:
    """The Jaccard similarity |A & B| / |A | B| of each of some sorted pairs ([n], float64).

    Args:
        pairs: Of rows that have shingles.
        numbers: Of the rows, each once, in any order ([k]).
        sets: Their shingles, each once in a row.
    """
    shared = np.zeros(len(pairs), np.int64)
    order = np.argsort(numbers)
    larger, smaller = (order[np.searchsorted(numbers, each, sorter=order)] for each in numbers_of(pairs))
    places = _ranks(sets.hashes)
    is_mine = np.zeros(len(places), bool)
    bounds, sizes = sets.offsets.tolist(), np.diff(sets.offsets)
    edges = np.flatnonzero(np.diff(larger, prepend=-1, append=-1)).tolist()
    for start, end in itertools.pairwise(edges):  # pairs of one row
        row = larger[start]
        mine = places[bounds[row] : bounds[row + 1]]
        is_mine[mine] = True
        others = smaller[start:end].tolist()
        theirs = np.concatenate([places[bounds[other] : bounds[other + 1]] for other in others])
        begins = np.cumsum(sizes[others]) - sizes[others]
        shared[start:end] = np.add.reduceat(is_mine[theirs], begins, dtype=np.int64)
        is_mine[mine] = False
    return shared / (sizes[larger] + sizes[smaller] - shared)


def _ranks(hashes: np.ndarray) -> np.ndarray:
    """How many different hashes are smaller than each ([n], uint32): a quarter of the memory of a dictionary of them,
    in half of its time."""
    order = np.argsort(hashes)
    ordered = hashes[order]
    is_new = ordered[1:] != ordered[:-1]
    del ordered
    ranks = np.zeros(len(hashes), np.uint32)
    ranks[order[1:]] = np.cumsum(is_new, dtype=np.uint32)
    return ranks
