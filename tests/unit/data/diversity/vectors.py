"""Embeddings made for tests."""

from __future__ import annotations

import numpy as np


def unit(rows: np.ndarray | list[list[float]]) -> np.ndarray:
    """Rows of length 1, float32."""
    vectors = np.asarray(rows, np.float64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def drawn(count: int, size: int = 8, seed: int = 0) -> np.ndarray:
    """Random directions."""
    return unit(np.random.default_rng(seed).normal(size=(count, size)))
