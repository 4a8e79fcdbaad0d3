"""The numbers of the report, worked out by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.binarize import Scored, ScoredCompletion
from zephyr_ray.data.preference_counts import MOST_MODELS, SCORE, AnswerCounts, PairCounts, count_pairs, rounded
from zephyr_ray.data.preferences_report import find_duels, rank, shares, spreads
from zephyr_ray.data.report_page import length_bars, round_bars
from zephyr_ray.schemas import PREFERENCES


def seen(*rows: dict[str, float], ratings: dict[str, float] | None = None) -> AnswerCounts:
    """Rows as {model: score}."""
    counts = AnswerCounts()
    for row in rows:
        answers = [ScoredCompletion("text", model, score, ratings or {}) for model, score in row.items()]
        counts.see(Scored("overall_score", answers, 0))
    return counts


def pairs(*rows: tuple[int, int, float | None, float | None], models: tuple[str, str] = ("a", "b")) -> pa.Table:
    """Rows as (characters of chosen, of rejected, score of chosen, of rejected)."""

    def message(length: int) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": "\u00e9" * length}]

    return pa.Table.from_pylist(
        [
            {
                "chosen": message(chosen),
                "rejected": message(rejected),
                "score_chosen": high,
                "score_rejected": low,
                "chosen_model": models[0],
                "rejected_model": models[1],
            }
            for chosen, rejected, high, low in rows
        ],
        schema=PREFERENCES,
    )


def test_wins_and_ties() -> None:
    counts = seen({"a": 9, "b": 3, "c": 3}, {"a": 2, "b": 3}, {"b": 5, "a": 5})
    assert counts.wins == {("a", "b"): 1, ("a", "c"): 1, ("b", "a"): 1}
    assert counts.ties == {("b", "c"): 1, ("a", "b"): 1}
    duels = find_duels(counts)
    assert (duels["a", "b"].wins, duels["a", "b"].ties, duels["a", "b"].losses) == (1, 1, 1)
    assert duels["a", "b"].share == pytest.approx(1 / 3)
    assert (duels["c", "b"].share, duels["c", "a"].share, duels["a", "c"].share) == (0, 0, 1)
    assert rank(duels) == ["a", "b", "c"]  # (1/2 + 1) / 2, (1/2 + 1/2) / 2, (0 + 1/2) / 2


def test_spreads_are_by_model_and_aspect_on_common_bins() -> None:
    counts = seen({"a": 9, "b": 3}, {"a": 10, "b": 3}, ratings={"honesty": 4.0})
    best, other = spreads(counts, SCORE)
    assert (best.model, best.count, best.mean) == ("a", 2, 9.5)
    assert (other.model, other.count, other.mean) == ("b", 2, 3.0)
    assert best.bars.edges == other.bars.edges == [2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5]
    assert (best.bars.heights, other.bars.heights) == ([0] * 6 + [1, 1], [2] + [0] * 7)
    assert counts.aspects() == ["honesty"]
    assert [spread.mean for spread in spreads(counts, "honesty")] == [4.0, 4.0]


@pytest.mark.parametrize(
    ("values", "edges", "heights"),
    [
        ([1, 5, 5], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5], [1, 0, 0, 0, 2]),
        ([1, 1.25, 2], [0.95, 1.05, 1.15, 1.25, 1.35, 1.45, 1.55, 1.65, 1.75, 1.85, 1.95, 2.05], None),
        ([1.0, 1.5, 3, 5], [0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5.25], [1, 1, 0, 0, 1, 0, 0, 0, 1]),
        ([0, 1], [-0.5, 0.5, 1.5], [1, 1]),
        ([-3.25], [-3.5, -2.5], [1]),
    ],
)
def test_bins_stand_around_round_numbers(values: list[float], edges: list[float], heights: list[int] | None) -> None:
    from collections import Counter

    (bars,) = round_bars([Counter(values)])
    assert bars.edges == pytest.approx(edges)
    assert sum(bars.heights) == len(values)
    assert heights is None or bars.heights == heights
    assert (bars.low, bars.high) == (min(values), max(values))


@given(st.lists(st.floats(-1e6, 1e6).map(rounded), min_size=1, max_size=30))
def test_no_score_is_lost_in_the_bins(values: list[float]) -> None:
    from collections import Counter

    (bars,) = round_bars([Counter(values)])
    assert sum(bars.heights) == len(values)
    assert len(bars.heights) <= 15


def test_lengths_are_characters_and_their_correlations_are_pearsons() -> None:
    rows = [(10, 4, 9.0, 3.0), (5, 8, 7.0, 6.0), (6, 6, 4.0, 2.0), (7, 1, None, None)]
    counts = count_pairs(pairs(*rows))
    assert (counts.pairs, counts.chosen_longer, counts.rejected_longer) == (4, 2, 1)
    assert (counts.chosen_characters.sum, counts.rejected_characters.sum) == (28, 19)
    # Differences (6, 6), (-3, 1), (0, 2), each in both directions: (36 - 3) / sqrt(45 * 41)
    assert counts.length_score_correlation() == pytest.approx(33 / math.sqrt(45 * 41))
    both = [
        (chosen - rejected, high - low) for chosen, rejected, high, low in rows if high is not None and low is not None
    ]
    mirrored = np.array([*both, *((-length, -score) for length, score in both)])
    assert counts.length_score_correlation() == pytest.approx(np.corrcoef(mirrored.T)[0, 1])
    lengths, is_chosen = np.array([[10, 5, 6, 7, 4, 8, 6, 1], [1, 1, 1, 1, 0, 0, 0, 0]])
    assert counts.length_chosen_correlation() == pytest.approx(np.corrcoef(lengths, is_chosen)[0, 1])


def test_nothing_varies() -> None:
    counts = count_pairs(pairs((5, 5, None, None), (5, 5, None, None)))
    assert (counts.length_score_correlation(), counts.length_chosen_correlation()) == (None, None)
    assert PairCounts().length_chosen_correlation() is None
    assert count_pairs(PREFERENCES.empty_table()).pairs == 0


def test_shares_of_models() -> None:
    counts = count_pairs(pairs((2, 1, 2, 1), (2, 1, 2, 1), models=("a", "b")))
    counts.add(count_pairs(pairs((2, 1, 2, 1), models=("b", "c"))))
    assert shares(counts) == [("a", 2, 0), ("b", 1, 2), ("c", 0, 1)]


def test_length_bins_hold_every_answer() -> None:
    counts = count_pairs(pairs((1, 5000, 2, 1), (1, 1, 2, 1)))
    chosen, rejected = length_bars(counts.chosen_characters, counts.rejected_characters)
    assert (sum(chosen.heights), sum(rejected.heights)) == (2, 2)
    assert chosen.heights[0] == 2
    assert (rejected.heights[0], rejected.heights[-1]) == (1, 1)
    assert length_bars(*(count_pairs(pairs((3, 3, 2, 1))).chosen_characters for _ in "ab"))[0].heights[0] == 1


def test_beyond_many_models_they_are_not_told_apart() -> None:
    rows = [{f"m{n}": 1.0, f"m{n + 1}": 2.0} for n in range(MOST_MODELS)]
    whole = AnswerCounts()
    for row in rows:
        whole.add(seen(row))
    assert whole.is_crowded
    assert (whole.models(), whole.wins) == ([], {})
    assert whole.scores[SCORE, None] == {1.0: MOST_MODELS, 2.0: MOST_MODELS}
    many = PairCounts()
    for n in range(MOST_MODELS + 1):
        many.add(count_pairs(pairs((2, 1, 2, 1), models=(f"m{n}", "m"))))
    assert (many.is_crowded, many.chosen, many.pairs) == (True, {}, MOST_MODELS + 1)


ROWS = st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5).map(float), min_size=1), max_size=8)


@given(ROWS, st.integers(0, 8))
def test_counts_merge(rows: list[dict[str, float]], cut: int) -> None:
    whole, parts = AnswerCounts(), AnswerCounts()
    whole.add(seen(*rows))
    parts.add(seen(*rows[cut:]))
    parts.add(seen(*rows[:cut]))
    assert dataclasses.asdict(whole) == dataclasses.asdict(parts)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(1, 5), st.integers(1, 5)), min_size=2))
def test_pair_counts_merge(rows: list[Any]) -> None:
    whole, parts = count_pairs(pairs(*rows)), count_pairs(pairs(*rows[1:]))
    parts.add(count_pairs(pairs(*rows[:1])))
    a, b = dataclasses.asdict(whole), dataclasses.asdict(parts)
    for name in ("chosen_characters", "rejected_characters"):
        assert a.pop(name).summary() == b.pop(name).summary()
    assert a == b
