"""Connected components of a graph that is given by its edges, in numpy (union-find with path compression)."""

from __future__ import annotations

import numpy as np


def components(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Args: the two ends of each edge ([n], whole numbers).

    Returns:
        Every number that is an end, sorted ([k]), and the smallest of its component ([k]).
    """
    nodes, ends = np.unique(np.concatenate([first, second]), return_inverse=True)
    left, right = ends[: len(first)], ends[len(first) :]
    parents = np.arange(len(nodes))
    while len(left):
        roots = np.stack([parents[left], parents[right]])
        apart = roots[0] != roots[1]
        left, right = left[apart], right[apart]
        smaller, larger = np.sort(roots[:, apart], axis=0)
        np.minimum.at(parents, larger, smaller)
        parents = _compressed(parents)
    return nodes, nodes[parents]


def _compressed(parents: np.ndarray) -> np.ndarray:
    """The root of each node."""
    while True:
        grandparents = parents[parents]
        if np.array_equal(grandparents, parents):
            return parents
        parents = grandparents
