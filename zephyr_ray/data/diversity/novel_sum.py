"""NovelSum (Yang et al. 2025, arXiv 2502.17184): how novel a text is among the others, on average.

With d(i, j) = 1 - cos(x_i, x_j), and pi_i(j) the rank of x_j among all others by d(i, j), from 1:

    v(i)     = s(i)^beta sum_j w_i(j) d(i, j) / sum_j w_i(j)        w_i(j) = pi_i(j)^-alpha
    NovelSum = mean_i v(i)

The near ones weigh most: a text with a twin is hardly novel, however far all others are. s(i) is the density of texts
around x_i: where they lie close together, a small distance says more. With N_k(i) the K nearest points that differ,

    s(i) = 1 / (mean_k |x_i - N_k(i)|^2 + 10^-9)

alpha = 1, beta = 0.5 and K = 10 are the paper's. These are the equations of the authors' code, which divides by the
weights, leaves x_i itself out, and takes the density of x_i. It counts equal points once where it looks for N_k(i).

The authors estimate s from a large set of other data, and advise beta = 0 where there is none: the density of the very
texts that are measured rewards texts that lie close together. Without a reference both are therefore given.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zephyr_ray.data.diversity.neighbours import blocks, nearest_earlier

ALPHA, BETA, NEIGHBOURS = 1.0, 0.5, 10

_LEAST = 1e-9
_EQUAL = 1 - 1e-6  # the cosine of points that differ by rounding alone


class NovelSum(NamedTuple):
    by_proximity: float
    """beta = 0."""
    by_proximity_and_density: float
    """beta = `BETA`, with the density of the texts themselves."""


def novel_sum(vectors: np.ndarray) -> NovelSum:
    """NovelSum of texts.

    Args:
        vectors: Their embeddings, [n, d], float32, of length 1.

    Raises:
        ValueError: There are fewer than two.
    """
    count = len(vectors)
    if count < 2:
        raise ValueError("NovelSum is of two texts and more")
    weights = np.arange(1, count, dtype=np.float64) ** -ALPHA
    weights /= weights.sum()
    points = ~(nearest_earlier(vectors) > _EQUAL)
    plain, dense = 0.0, 0.0
    for rows in blocks(count):
        distances = np.maximum(1 - vectors[rows] @ vectors.T, 0)
        densities = 1 / (_mean_squares(distances[:, points]) + _LEAST)
        own = np.arange(rows.stop - rows.start)
        distances[own, rows.start + own] = -1  # the first when sorted
        distances.sort(axis=1)
        novelty = distances[:, 1:].astype(np.float64) @ weights
        plain += novelty.sum()
        dense += (densities**BETA * novelty).sum()
    return NovelSum(float(plain / count), float(dense / count))


def _mean_squares(distances: np.ndarray) -> np.ndarray:
    """The mean squared distance of texts to the nearest different points ([k]) by 1 - cos to all of them ([k, points]).
    The nearest of all is the text itself, or equals it."""
    most = min(NEIGHBOURS + 1, distances.shape[1])
    near = np.sort(np.partition(distances, most - 1, axis=1)[:, :most], axis=1)[:, 1:]
    return 2 * near.mean(axis=1, dtype=np.float64) if near.shape[1] else np.zeros(len(near))
