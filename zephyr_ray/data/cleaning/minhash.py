"""MinHash signatures of sets of shingles, and their bands: rows that share a band are candidates for near duplicates.

A place of a signature is equal in two rows with a probability of their Jaccard similarity J (Broder, 1997), and one of
B bands of R places with 1 - (1 - J^R)^B (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, section 3.4).
Signatures come from rensa.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from zephyr_ray.data.cleaning.shingles import Shingles, mix

_PLACES = 128  # of a signature, at most
_MISSED = 0.015  # of the pairs exactly at the threshold, at most
_SEED = 1
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Bands:
    """How a signature is divided."""

    count: int
    rows: int
    """Places of a band."""

    def found(self, jaccard: float) -> float:
        """Probability that two rows of this similarity share a band."""
        return 1 - (1 - jaccard**self.rows) ** self.count


def bands_for(threshold: float) -> Bands:
    """The longest bands, those with the fewest false candidates, that find 98.5 % of the pairs at the threshold."""
    divided = [Bands(_PLACES // rows, rows) for rows in range(_PLACES, 0, -1)]
    return next((bands for bands in divided if bands.found(threshold) >= 1 - _MISSED), divided[-1])


def band_keys(shingles: Shingles, bands: Bands) -> np.ndarray:
    """A hash of each band of each row's signature ([rows, bands], uint64). A row without shingles is like any other."""
    signatures = _signatures(shingles, bands.count * bands.rows).reshape(-1, bands.count, bands.rows)
    keys = np.broadcast_to(np.arange(1, bands.count + 1, dtype=np.uint64), signatures.shape[:2])
    for place in range(bands.rows):
        keys = mix(keys * _BASE + signatures[:, :, place])
    return keys


def _signatures(shingles: Shingles, places: int) -> np.ndarray:
    """[rows, places], uint64."""
    from rensa import RMinHash

    with _one_thread():
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            shingles.hashes, shingles.offsets.astype(np.uint64), places, _SEED
        )
    return np.array(matrix.to_rows(), np.uint64).reshape(-1, places)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tasks are there for each CPU: rensa's pool, which is as large as what it finds here when it first starts, is one
    thread, and other libraries' are what they would be.
    """
    name = "RAYON_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
