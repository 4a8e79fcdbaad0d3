"""The index of instructions decides as comparing each with all others does."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.embedded import world
from zephyr_ray.generation.similarity import SimilarTexts, common_subsequence, rouge_l, words_of


def plain_common_subsequence(first: list[str], second: list[str]) -> int:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, j in product(range(len(first)), range(len(second))):
        same = first[i] == second[j]
        table[i + 1][j + 1] = table[i][j] + 1 if same else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def by_comparing_all(texts: list[str], threshold: float) -> list[bool]:
    kept: list[list[str]] = []
    added = []
    for words in map(words_of, texts):
        added.append(all(rouge_l(words, other) <= threshold for other in kept))
        if added[-1]:
            kept.append(words)
    return added


def by_index(texts: list[str], threshold: float) -> list[bool]:
    index = SimilarTexts(threshold)
    return [index.add(text) for text in texts]


def varied(count: int, seed: int) -> list[str]:
    """Sentences of words of Zipf's frequencies; half of them are earlier ones with some words changed."""
    rng = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(400)]
    weights = [1 / rank for rank in range(1, 401)]
    texts: list[list[str]] = []
    for _ in range(count):
        words = rng.choices(vocabulary, weights, k=rng.randint(1, 30))
        if texts and rng.random() < 0.5:
            words = list(rng.choice(texts))
            for _ in range(rng.randint(0, len(words) // 2)):
                place = rng.randrange(len(words) + 1)
                words[place : place + rng.randint(0, 1)] = rng.choices(vocabulary, weights, k=rng.randint(0, 2))
        texts.append(words)
    return [" ".join(words) for words in texts]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 1.0])
def test_the_index_decides_as_comparing_with_all_does(threshold: float) -> None:
    texts = varied(320, seed=int(threshold * 10))
    added = by_comparing_all(texts, threshold)
    assert by_index(texts, threshold) == added
    assert threshold == 1 or 30 < sum(added) < 300


def test_instructions_of_the_embedded_world_which_are_all_but_alike() -> None:
    texts = list(world.prompts("dialogues", 300, seed=0))
    added = by_comparing_all(texts, 0.7)
    assert by_index(texts, 0.7) == added
    assert 0 < sum(added) < 300


@given(st.lists(st.text("ab c", max_size=12), max_size=30), st.sampled_from([0.3, 0.7, 2 / 3]))
def test_short_texts(texts: list[str], threshold: float) -> None:
    assert by_index(texts, threshold) == by_comparing_all(texts, threshold)


@given(st.lists(st.sampled_from("abcd"), max_size=70), st.lists(st.sampled_from("abcd"), max_size=70))
def test_the_longest_common_subsequence(first: list[str], second: list[str]) -> None:
    assert common_subsequence(first, second) == plain_common_subsequence(first, second)


def test_the_f_measure_by_hand() -> None:
    # the cat the mat: 4 of 6 and of 5 words
    assert rouge_l(words_of("The cat sat on the mat."), words_of("the cat is the mat")) == pytest.approx(8 / 11)
    assert words_of("Écris: l'été_2 (v1.5)!") == ["écris", "l", "été", "2", "v1", "5"]
    assert rouge_l([], []) == 0
