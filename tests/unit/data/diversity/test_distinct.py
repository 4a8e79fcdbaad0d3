"""Distinct-n equals a count of n-grams by hand, and compares texts of different sizes at one size."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.data.cleaning.test_chain import dialogue
from zephyr_ray.data.diversity.distinct import LONGEST, SIZES, distinct_at_sizes, distinct_shares, words_said
from zephyr_ray.schemas import MESSAGES


def said(*texts: str) -> pa.ChunkedArray:
    """One dialogue of a user who says these texts."""
    return pa.chunked_array([pa.array([[{"role": "user", "content": text} for text in texts]], MESSAGES)])


def test_it_is_different_n_grams_by_all_of_them() -> None:
    """a b a b c has 3 of 5 words, {ab, ba, bc} of 4, {aba, bab, abc} of 3 and two of 2."""
    assert distinct_shares(words_said(said("A b, a b. C!"), "user")) == [3 / 5, 3 / 4, 1, 1]


def test_an_n_gram_lies_within_a_message() -> None:
    shares = distinct_shares(words_said(said("a b", "a b", "", "c"), "user"))
    assert shares[:2] == [3 / 5, 1 / 2]
    assert np.isnan(shares[2:]).all()


def test_messages_of_one_role_are_read() -> None:
    rows = pa.chunked_array([pa.array([dialogue("a b", "c d e f", "a", "c")], MESSAGES)])
    assert [len(words_said(rows, role).hashes) for role in ("user", "assistant", "system")] == [3, 5, 0]
    assert words_said(rows, "user").offsets.tolist() == [0, 2, 3]


def test_it_equals_a_count_of_words() -> None:
    generator = np.random.default_rng(3)
    texts = [" ".join(f"w{word}" for word in generator.integers(30, size=length)) for length in range(40)]
    expected = []
    for length in range(1, LONGEST + 1):
        grams = [
            tuple(words[at : at + length]) for words in map(str.split, texts) for at in range(len(words) - length + 1)
        ]
        expected.append(len(set(grams)) / len(grams))
    assert distinct_shares(words_said(said(*texts), "user")) == expected


def test_texts_of_different_sizes_compare_at_one_size() -> None:
    """Of ten times as much from the same 500 words, distinct-1 falls to a tenth; at 1,000 words it is what it was."""
    generator = np.random.default_rng(0)

    def text(messages: int) -> list[str]:
        return [" ".join(f"w{word}" for word in generator.integers(500, size=20)) for _ in range(messages)]

    small, large = (words_said(said(*text(messages)), "user") for messages in (60, 600))
    ours, theirs = distinct_at_sizes(small, 0), distinct_at_sizes(large, 0)
    assert [found.words for found in ours] == [1_000]
    assert [found.words for found in theirs] == [1_000, 10_000]
    assert ours[0].shares[0] == pytest.approx(theirs[0].shares[0], rel=0.06)
    assert theirs[1].shares[0] == pytest.approx(0.05)
    assert distinct_at_sizes(large, 0) == theirs
    assert distinct_at_sizes(large, 1) != theirs


def test_a_text_below_every_size_is_taken_whole() -> None:
    (found,) = distinct_at_sizes(words_said(said("a b", "a"), "user"), 0)
    assert found == (3, (2 / 3, 1.0, None, None))
    assert min(SIZES) > 3
    assert distinct_at_sizes(words_said(said(""), "user"), 0) == []


def test_the_last_message_of_a_sample_is_cut() -> None:
    """Two messages of 600 words, all different: a sample of 1,000 has all of one and 400 of the other."""
    texts = [" ".join(f"w{word}" for word in range(start, start + 600)) for start in (0, 600)]
    (found,) = distinct_at_sizes(words_said(said(*texts), "user"), 0)
    assert found == (1_000, (1.0, 1.0, 1.0, 1.0))
    repeated = list(itertools.repeat(texts[0], 2))
    (found,) = distinct_at_sizes(words_said(said(*repeated), "user"), 0)
    assert found.shares[:2] == pytest.approx((600 / 1_000, 599 / (599 + 399)))
