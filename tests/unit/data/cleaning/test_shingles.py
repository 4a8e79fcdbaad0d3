"""Shingles hashed in numpy are the runs of words that a plain loop finds, whatever the text and where it lies."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zephyr_ray.data.cleaning import shingles as shingles_module
from zephyr_ray.data.cleaning.shingles import joined, shingles, unique_shingles
from zephyr_ray.schemas import MESSAGES

Dialogue = list[str]
IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
TEXT = st.text(st.sampled_from("aAbB1 .,'_-\n\0éÉßñ’“…中かﬁ\u0301"), max_size=12) | st.text(max_size=5)
DIALOGUES = st.lists(st.lists(TEXT, max_size=4), max_size=6)


def column(dialogues: list[Dialogue]) -> pa.Array:
    return pa.array([[{"role": "user", "content": text} for text in texts] for texts in dialogues], MESSAGES)


def runs_of(texts: Dialogue, length: int) -> list[tuple[str, ...]]:
    """The runs of words of a dialogue, one word after the other."""
    folded = " \n ".join(texts).casefold()
    words = re.findall(rf"[{IDEOGRAPHS}]|[^\W_{IDEOGRAPHS}]+", folded)
    if len(words) < length:
        return [tuple(words)] if words else []
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]


@settings(max_examples=60)
@given(DIALOGUES, st.integers(1, 5), st.sampled_from([1, 16, 1 << 18]), st.integers(0, 3))
@example([["a b c d e f", "G"], [], [""], ["", "x", ""]], 5, 16, 1)
def test_as_a_plain_loop_finds_them(dialogues: list[Dialogue], length: int, size: int, skipped: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shingles_module, "_BYTES", size)
        found = shingles(pa.chunked_array([column(dialogues).slice(skipped), column(dialogues)]), length)
    wanted = [runs_of(texts, length) for texts in [*dialogues[skipped:], *dialogues]]
    assert np.diff(found.offsets).tolist() == [len(runs) for runs in wanted]
    flat = [run for runs in wanted for run in runs]
    by_run = dict(zip(flat, found.hashes.tolist(), strict=True))
    assert [by_run[run] for run in flat] == found.hashes.tolist()
    assert len(set(by_run.values())) == len(by_run)


def test_by_hand() -> None:
    texts = [["The cat sat, on the mat!", "Good."], ["the CAT sat on the mat good"], ["the cat sat on the mat goods"]]
    first, second, third = (unique_shingles(column([text]), 5).hashes.tolist() for text in texts)
    assert first == second == sorted(first)
    assert len(first) == 3
    assert len({*first, *third}) == 4  # the last run is another one


def test_short_dialogues_have_one_shingle_of_all_their_words() -> None:
    found = shingles(column([["Yes", "no"], ["yes no!"], ["yes"], ["yes no no"], ["..."], []]), 5)
    assert np.diff(found.offsets).tolist() == [1, 1, 1, 1, 0, 0]
    assert found.hashes[0] == found.hashes[1]
    assert len(set(found.hashes.tolist())) == 3


def test_words_and_runs_have_hashes_of_their_own() -> None:
    words = {f"{left}{middle}{right}" for left in "abcdefgh" for middle in range(500) for right in ("", "x", "xx", "0")}
    found = shingles(column([[" ".join(words)]]), 1)
    assert len(set(found.hashes.tolist())) == len(words)
    swapped = shingles(column([["a b", "b a", "a a", "b b"]]), 2)
    assert len(set(swapped.hashes.tolist())) == 4  # ab, bb, ba, aa; "b b", "b a" and "a a" occur twice


def test_repeats_of_a_dialogue_count_once() -> None:
    found = unique_shingles(column([["a b a b a"], ["b"]]), 2)
    assert found.offsets.tolist() == [0, 2, 3]


def test_taken_and_joined() -> None:
    found = shingles(column([["a b"], ["c"], [], ["d e f"]]), 1)
    taken = found.take(np.array([3, 2, 0]))
    assert taken.hashes.tolist() == [*found.hashes[3:].tolist(), *found.hashes[:2].tolist()]
    assert taken.offsets.tolist() == [0, 3, 3, 5]
    both = joined([found, taken])
    assert both.offsets.tolist() == [0, 2, 3, 3, 6, 9, 9, 11]
    assert joined([]).offsets.tolist() == [0]
