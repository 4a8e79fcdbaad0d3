"""Runs of words that are nearly in a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.cleaning.near_runs import fewest_edits


def edits(wanted: str, text: str, piece: str, run: int | None = None, most: int = 2, changes: int = 2) -> int | None:
    words, said, shared = wanted.split(), text.split(), piece.split()
    at, start = words.index(shared[0]), said.index(shared[0])
    length = run or len(words)
    return fewest_edits(words, at, said, start, len(shared), run=length, edits=most, changes=changes)


@pytest.mark.parametrize(
    ("text", "fewest"),
    [
        ("a b c d e f", 0),
        ("x a b c d e f y", 0),
        ("ab c d e f", 0),  # the same letters
        ("a b x c d e f", 1),
        ("a x c d e f", 1),
        ("a c d e f", 1),
        ("b c d e f", 1),
        ("b c d e", 2),
        ("a b x y c d e f", 2),
        ("a x c d e y f", 2),
        ("a x c d e y", 2),
        ("x y c d e z", None),
    ],
)
def test_by_hand(text: str, fewest: int | None) -> None:
    assert edits("a b c d e f", text, "c d e") == fewest


def test_the_division_into_words_is_no_edit() -> None:
    assert edits("a b c d e f", "a b c def", "b c") == 0
    assert edits("water melon b c 1 000 f", "watermelon b c 10 00 f", "b c") == 0
    assert edits("water melon b c", "watermelons b c", "b c") == 2


def test_limits() -> None:
    assert edits("a b c d e f", "a x c d e f", "c d e", changes=0) is None
    assert edits("a b c d e f", "a b x c d e f", "c d e", changes=0) == 1
    assert edits("a b c d e f", "a b x y c d e f", "c d e", most=1) is None
    assert edits("a b c d e f", "c d e f", "c d e", run=4) == 0
    assert edits("a b c d e f", "x c d e y", "c d e", run=4) == 1


@given(st.text("abc", min_size=2, max_size=6), st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_the_edits_are_those_of_a_table(prompt: str, before: str, after: str) -> None:
    """Words of one letter, so that no division is another one; changes are not limited."""
    text = f"{before}-{after}"  # the piece is a letter that neither has
    for at in range(len(prompt)):
        wanted = prompt[:at] + "-" + prompt[at + 1 :]
        least = min(distance(wanted[:at][::-1], before[::-1][:end]) for end in range(len(before) + 1)) + min(
            distance(wanted[at + 1 :], after[:end]) for end in range(len(after) + 1)
        )
        found = fewest_edits(list(wanted), at, list(text), len(before), 1, run=len(wanted), edits=2, changes=2)
        assert found == (least if least <= 2 else None)


def distance(one: str, other: str) -> int:
    """Levenshtein's."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]
