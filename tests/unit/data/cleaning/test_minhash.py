"""Rows share a band as often as the theory of MinHash says, at every similarity and size."""

from __future__ import annotations

import os

import numpy as np
import pytest

from zephyr_ray.data.cleaning.minhash import Bands, band_keys, bands_for
from zephyr_ray.data.cleaning.shingles import Shingles


def pairs_of_sets(jaccard: float, size: int, count: int) -> Shingles:
    """Rows of which each two are sets of so many numbers with a similarity."""
    shared = round(2 * size * jaccard / (1 + jaccard))
    numbers = np.random.default_rng(0).integers(1 << 64, size=(count, 2 * size - shared), dtype=np.uint64)
    rows = np.stack([numbers[:, :size], numbers[:, -size:]], axis=1)
    return Shingles(rows.ravel(), np.arange(2 * count + 1) * size)


def test_bands_by_hand() -> None:
    bands = bands_for(0.7)
    assert bands == Bands(25, 5)
    assert bands.found(0.7) == pytest.approx(1 - (1 - 0.7**5) ** 25)
    assert [round(bands.found(jaccard), 4) for jaccard in (0.7, 0.75, 0.8, 0.9)] == [0.9899, 0.9989, 1.0, 1.0]


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_find_what_is_at_the_threshold_and_longer_ones_would_not(threshold: float) -> None:
    bands = bands_for(threshold)
    assert bands.found(threshold) >= 0.985
    longer = Bands(128 // (bands.rows + 1), bands.rows + 1)
    assert bands.rows == 128 or longer.found(threshold) < 0.985


@pytest.mark.parametrize("size", [20, 150, 1000])
@pytest.mark.parametrize("jaccard", [0.3, 0.5, 0.7, 0.8])
def test_as_many_are_found_as_theory_says(jaccard: float, size: int) -> None:
    count, bands = 1000, bands_for(0.7)
    keys = band_keys(pairs_of_sets(jaccard, size, count), bands).reshape(count, 2, bands.count)
    shared = round(2 * size * jaccard / (1 + jaccard))
    wanted = bands.found(shared / (2 * size - shared))
    found = (keys[:, 0] == keys[:, 1]).any(axis=1).mean()
    assert found == pytest.approx(wanted, abs=4 * np.sqrt(wanted * (1 - wanted) / count) + 0.002)


def test_keys_are_the_same_whatever_the_order_and_the_rows_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYON_NUM_THREADS", "7")
    hashes = np.arange(1, 41, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    both = Shingles(np.concatenate([hashes, hashes[::-1], hashes[:3]]), np.array([0, 40, 80, 83, 83]))
    keys = band_keys(both, Bands(25, 5))
    assert keys.shape == (4, 25)
    assert np.array_equal(keys[0], keys[1])
    assert np.array_equal(keys[:1], band_keys(Shingles(hashes, np.array([0, 40])), Bands(25, 5)))
    assert len(np.unique(keys[1:])) == 75
    assert os.environ["RAYON_NUM_THREADS"] == "7"


def test_keys_are_those_of_any_machine() -> None:
    hashes = np.arange(1, 200, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = band_keys(Shingles(hashes, np.array([0, 150, 199])), Bands(2, 3))
    assert keys.tolist() == [[9440330590150093722, 18389710313996806908], [12562761983120433341, 6177127682735346718]]
