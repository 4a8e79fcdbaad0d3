"""Rows with the highest scores, whatever the files; a seed decides between equal ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.data.test_preferences import judgment
from zephyr_ray.data.selection import highest
from zephyr_ray.schemas import DIALOGUES, JUDGMENTS


def keys_of(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1 << 63, size=(2, count)).astype(np.uint64)


@pytest.mark.parametrize("parts", [1, 3, 10])
def test_the_highest_of_all_parts_are_found(parts: int) -> None:
    ids, scores = keys_of(100), np.arange(100.0)
    scores[90:] = math.nan
    divided = [highest._highest(15, 0, [(ids[:, part::parts], scores[part::parts])]) for part in range(parts)]
    found, best = highest._highest(15, 0, divided)
    assert best.tolist() == list(range(89, 74, -1))
    np.testing.assert_array_equal(found, ids[:, 89:74:-1])


def test_rows_without_a_score_come_last_but_come() -> None:
    found, scores = highest._highest(4, 0, [(keys_of(4), np.array([math.nan, 1.0, math.nan, 2.0]))])
    assert scores[:2].tolist() == [2.0, 1.0]
    assert found.shape == (2, 4)


def test_equal_scores_are_drawn_by_seed_and_uniformly() -> None:
    ids = keys_of(2000)
    drawn = [highest._highest(500, seed, [(ids, np.zeros(2000))])[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    both = len(set(drawn[0][0].tolist()) & set(drawn[2][0].tolist()))
    assert 90 < both < 160  # 125 are expected of independent draws
    counts, _ = np.histogram(highest.hashes(ids, 5).astype(np.float64) / 2.0**64, bins=10, range=(0, 1))
    assert counts.min() > 150


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 4, texts, strict=False)]


def test_the_length_is_that_of_all_answers() -> None:
    rows = [talk("a long question", "yes"), talk("a", "bb", "ccc", "d\u00fcdd")]
    table = pa.Table.from_pylist(
        [{"dialogue_id": str(number), "messages": row, "source": "s"} for number, row in enumerate(rows)], DIALOGUES
    )
    chunked = pa.concat_tables([table, table.slice(1)])
    assert highest.answer_characters(chunked).tolist() == [3, 6, 6]


def rated(overall: float | None, *ratings: float) -> dict[str, Any]:
    row = judgment(1)
    answer = row["completions"][0] | {"overall_score": overall}
    names = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    answer["annotations"] = {name: {"rating": each} for name, each in zip(names, ratings, strict=False)}
    return row | {"completions": [answer]}


def test_a_judge_counts_by_its_overall_rating_or_by_the_mean_of_its_aspects() -> None:
    table = pa.Table.from_pylist([rated(7.0, 5, 4), rated(None, 1, 2, 3, 4), rated(None)], schema=JUDGMENTS)
    assert highest.overall_rating(table).tolist()[0] == 7
    assert np.isnan(highest.overall_rating(table)[1:]).all()
    assert highest.mean_rating(table).tolist()[:2] == [4.5, 2.5]
    assert math.isnan(highest.mean_rating(table)[2])


def test_a_row_with_several_answers_is_not_scored() -> None:
    row = judgment(1)
    with pytest.raises(ValueError, match="should have one"):
        highest.overall_rating(pa.Table.from_pylist([row], schema=JUDGMENTS))
