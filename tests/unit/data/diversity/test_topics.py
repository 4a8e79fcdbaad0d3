"""Clusters are found, and named by the words that tell them from the others."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.unit.data.diversity.vectors import drawn, unit
from zephyr_ray.data.diversity.topics import MOST_CLUSTERS, characteristic_words, clusters, log_odds, plane


def test_what_lies_together_is_one_cluster_and_the_largest_is_the_first() -> None:
    centres = np.eye(3, 16)[[0] * 4 + [1] * 9 + [2] * 5]
    found = clusters(unit(centres + 0.05 * drawn(18, 16)), seed=0)
    assert found.tolist() == [2] * 4 + [0] * 9 + [1] * 5


def test_there_are_few_clusters_of_few_texts() -> None:
    assert len(set(clusters(drawn(8), 0))) == 2
    assert clusters(drawn(1), 0).tolist() == [0]
    assert clusters(np.repeat(drawn(1), 50, axis=0), 0).tolist() == [0] * 50
    assert len(set(clusters(drawn(1_000), 0))) == MOST_CLUSTERS


def test_words_are_those_that_the_others_lack() -> None:
    texts = [frozenset(text.split()) for text in ("the cat and sea", "the cat", "the dog and sea", "the dog bark")]
    cats, dogs = characteristic_words(texts, np.array([0, 0, 1, 1]))
    assert cats[0] == "cat"
    assert dogs[:2] == ["dog", "bark"]
    assert not {"the", "and", "sea"} & set(dogs)


def test_the_score_of_a_word_by_hand() -> None:
    """A word in 30 of the 1,000 words of a cluster and in 70 of 9,000 others has a prior of 1,000 100 / 10,000 = 10."""
    difference = math.log(40 / (1_000 + 1_000 - 40)) - math.log(80 / (9_000 + 1_000 - 80))
    assert log_odds(30, 1_000, 70, 9_000) == pytest.approx(difference / math.sqrt(1 / 40 + 1 / 80))
    assert log_odds(30, 1_000, 70, 9_000) == pytest.approx(4.7946, abs=1e-4)
    assert log_odds(30, 1_000, 270, 9_000) == pytest.approx(0, abs=1e-9)
    assert log_odds(3, 100, 7, 900) < log_odds(30, 1_000, 70, 9_000)  # the same shares of fewer words


def test_one_cluster_is_named_by_its_most_frequent_words() -> None:
    texts = [frozenset({"a", "b"}), frozenset({"b"})]
    assert characteristic_words(texts, np.zeros(2, np.int64)) == [["b", "a"]]
    assert characteristic_words([], np.empty(0, np.int64)) == []


def test_the_plane_is_that_of_the_largest_spread() -> None:
    points = np.array([[3, 0, 0, 7], [-3, 0, 0, 7], [0, 1, 0, 7], [0, -1, 0, 7]], np.float32)
    found = plane(points)
    assert np.abs(found) == pytest.approx(np.array([[3, 0], [3, 0], [0, 1], [0, 1]]), abs=1e-6)
    assert plane(np.ones((3, 1), np.float32)).tolist() == [[0, 0]] * 3


def test_the_only_word_that_there_is_names_every_topic() -> None:
    texts = [frozenset({"question"})] * 4
    assert characteristic_words(texts, np.array([0, 0, 0, 1])) == [["question"], ["question"]]
