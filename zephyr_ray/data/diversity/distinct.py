"""Distinct-n: the share of n-grams that are different ones (Li et al. 2016, arXiv 1510.03055).

    distinct-n = different n-grams / n-grams

An n-gram lies within a message. Words are those of `cleaning.shingles`: case and punctuation are folded. The measure
falls with the length of a text, since the words of a language come again. So it is taken of random samples of as many
words: two texts compare at the same number of words only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.data.cleaning.shingles import Shingles, mix, shingles
from zephyr_ray.data.cleaning.shingles import distinct as different

SIZES = (1_000, 10_000, 100_000)
"""Words of a sample."""
LONGEST = 4
"""Words of the longest n-grams."""
SAMPLES = 10

_BASE = np.uint64(0xD1342543DE82EF95)
_NOWHERE = np.zeros(1, np.int64)


class Distinct(NamedTuple):
    """Distinct-n of a text, the mean over samples."""

    words: int
    """Of a sample."""
    shares: tuple[float | None, ...]
    """Distinct-1 to distinct-`LONGEST`; None where no message is that long."""


def words_said(messages: pa.ChunkedArray | pa.Array, role: str) -> Shingles:
    """The words of a role's messages as hashes, one message after the other.

    Args:
        messages: Dialogues (`schemas.MESSAGES`), without nulls.
        role: Whose messages are read.
    """
    joined = messages.combine_chunks() if isinstance(messages, pa.ChunkedArray) else messages
    said = joined.flatten()
    said = said.filter(pc.equal(said.field("role"), role))
    return shingles(pa.ListArray.from_arrays(pa.array(np.arange(len(said) + 1), pa.int32()), said), 1)


def distinct_at_sizes(words: Shingles, seed: int) -> list[Distinct]:
    """Distinct-n at every size of `SIZES` that a text has the words for; of all its words, where it has fewer than any.

    Args:
        words: A text's words, by message (`words_said`).
        seed: Of the samples. A sample is messages in random order, up to so many words; the last message is cut.
    """
    total = len(words.hashes)
    sizes = [size for size in SIZES if size <= total] or ([total] if total else [])
    generator = np.random.default_rng(seed)
    return [Distinct(size, _mean_of_samples(words, size, generator)) for size in sizes]


def distinct_shares(words: Shingles) -> list[float]:
    """Distinct-1 to distinct-`LONGEST` of a text; not a number where it has no such n-grams."""
    grams, places = words.hashes.copy(), np.arange(len(words.hashes))
    ends = np.repeat(words.offsets[1:], np.diff(words.offsets))
    shares = []
    for length in range(1, LONGEST + 1):
        if length > 1:
            inside = places + length <= ends
            places, ends, grams = places[inside], ends[inside], grams[inside]
            grams = mix(grams * _BASE + words.hashes[places + length - 1])
        shares.append(len(different(grams)) / len(grams) if len(grams) else float("nan"))
    return shares


def _mean_of_samples(words: Shingles, size: int, generator: np.random.Generator) -> tuple[float | None, ...]:
    samples = 1 if size == len(words.hashes) else SAMPLES
    found = np.array([distinct_shares(_sample(words, size, generator)) for _ in range(samples)])
    return tuple(None if np.isnan(mean) else float(mean) for mean in found.mean(axis=0))


def _sample(words: Shingles, size: int, generator: np.random.Generator) -> Shingles:
    order = generator.permutation(len(words.offsets) - 1)
    ends = np.cumsum(np.diff(words.offsets)[order])
    taken = words.take(order[: int(np.searchsorted(ends, size)) + 1])
    offsets = np.minimum(taken.offsets, size)
    return Shingles(taken.hashes[:size], offsets)
