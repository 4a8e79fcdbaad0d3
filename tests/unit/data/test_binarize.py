"""Which answers become a pair: hand-worked rows, and what must hold for any."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.binarize import Rule, disagrees, mean_rating, ratings
from zephyr_ray.data.formats.layouts import preferences
from zephyr_ray.data.preference_counts import AnswerCounts
from zephyr_ray.data.preferences import to_pairs
from zephyr_ray.schemas import Dropped, Reason


def row(*scores: Any, instruction: str = "Q") -> dict[str, Any]:
    answers = [{"model": f"m{n}", "response": f"answer {n}", "overall_score": score} for n, score in enumerate(scores)]
    return {"instruction": instruction, "completions": answers}


def rated(overall: Any, *ratings: Any, response: str) -> dict[str, Any]:
    """An answer in UltraFeedback's own form: numbers as text, or "N/A"."""
    aspects = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    annotations = {aspect: {"Rating": rating} for aspect, rating in zip(aspects, ratings, strict=False)}
    return {"model": response, "response": response, "overall_score": overall, "annotations": annotations}


def models(raw: dict[str, Any], **rule: Any) -> list[tuple[str, str]]:
    pairs = preferences(raw, Rule(**rule))
    assert all(isinstance(pair, dict) for pair in pairs)
    return [(pair["chosen_model"], pair["rejected_model"]) for pair in pairs if isinstance(pair, dict)]


def reason(raw: dict[str, Any], **rule: Any) -> Reason:
    with pytest.raises(Dropped) as caught:
        preferences(raw, Rule(**rule))
    return caught.value.reason


def test_every_pair_is_every_two_answers_with_different_scores() -> None:
    found = models(row(3, 9, None, 3, 5), rejected="every_pair")
    assert set(found) == {("m1", "m0"), ("m4", "m0"), ("m1", "m3"), ("m1", "m4"), ("m4", "m3")}
    assert len(found) == 5


def test_the_margin_holds_for_every_rule() -> None:
    raw = row(9, 8, 6, 4)
    assert {models(raw, margin=3, seed=seed)[0] for seed in range(20)} == {("m0", "m3")}  # 9 - 6 is not more than 3
    assert {models(raw, margin=2.5, seed=seed)[0] for seed in range(20)} == {("m0", "m2"), ("m0", "m3")}
    assert models(raw, margin=2.5, rejected="lowest") == [("m0", "m3")]
    assert models(raw, margin=2.5, rejected="every_pair") == [("m0", "m2"), ("m0", "m3"), ("m1", "m3")]
    for rule in ("random_lower", "lowest", "every_pair"):
        assert reason(raw, margin=5, rejected=rule) == Reason.TIE


def test_the_margin_holds_for_pairs_that_came_with_scores() -> None:
    pair = {"prompt": "Q", "chosen": "4", "rejected": "5", "score_chosen": 6, "score_rejected": 8}
    assert len(preferences(pair, Rule(margin=1.9))) == 1  # labels that were flipped on purpose stay
    assert reason(pair, margin=2) == Reason.TIE
    assert len(preferences({**pair, "score_rejected": None}, Rule(margin=2))) == 1


def test_a_draw_among_several_best_answers_is_counted() -> None:
    counts = AnswerCounts()
    for raw in (row(9, 9, 1), row(9, 1)):
        preferences(raw, counts=counts)
    with pytest.raises(Dropped, match="tie"):
        preferences(row(9, 9), counts=counts)
    assert (counts.scored_rows, counts.drawn_among_best) == (3, 1)
    same = row(9, 9, 1)
    same["completions"][1]["response"] = "answer 0"  # one text twice is no draw
    preferences(same, counts=counts)
    assert counts.drawn_among_best == 1


def test_aspects_and_overall_may_rank_differently() -> None:
    raw = {"instruction": "Q", "completions": [rated(9, "3", "3", response="a"), rated(5, "4", "5", response="b")]}
    assert models(raw, score="overall") == [("a", "b")]
    assert models(raw, score="aspects") == [("b", "a")]
    (pair,) = preferences(raw, Rule(score="aspects"))
    assert isinstance(pair, dict)
    assert (pair["score_chosen"], pair["score_rejected"]) == (4.5, 3.0)


def mean(answer: dict[str, Any]) -> float | None:
    return mean_rating(answer, ratings(answer))


def test_the_mean_of_aspects() -> None:
    assert mean(rated(None, "4", "N/A", "2", "3", response="a")) == 3.0
    ours = {"annotations": {"honesty": {"rating": 2.5, "spread": 0.5, "rationale": "r"}, "helpfulness": {}}}
    assert mean(ours) == 2.5
    assert mean({"annotations": {"honesty": {"rating": 2}, "overall": {"rating": 9}}}) == 2.0
    assert mean({"annotations": {"honesty": {"rating": None}}}) is None
    assert mean({"annotations": ["honesty"]}) is None


def test_aspects_fall_back_on_their_mean_in_the_file_and_never_on_the_overall_score() -> None:
    raw = row(9, 1)
    assert reason(raw, score="aspects") == Reason.UNSCORED
    for answer, score in zip(raw["completions"], (2.25, 4.5), strict=True):
        answer["fine-grained_score"] = score
    assert models(raw, score="aspects") == [("m1", "m0")]


@pytest.mark.parametrize(
    ("overall", "given_ratings", "limit", "expected"),
    [
        (10, (1, 1), 0.5, True),  # 1 against 0
        (10, (3, 3), 0.5, False),  # 1 against 0.5: not more than 0.5 apart
        (10, (3, 2), 0.5, True),  # 1 against 0.375
        (1, (5, 5), 0.99, True),
        (5.5, (1, 1), 0.5, False),  # 0.5 against 0
        (None, (1, 1), 0.1, False),
        (10, (), 0.1, False),
        (80, (1, 1), 0.1, False),  # a percentage is no rating from 1 to 10
    ],
)
def test_disagreement(overall: Any, given_ratings: tuple[int, ...], limit: float, expected: bool) -> None:
    answer = rated(overall, *given_ratings, response="a")
    assert disagrees(answer, ratings(answer), limit) is expected


def test_answers_that_contradict_themselves_are_counted_or_left_out() -> None:
    misread = rated(10, "1", "1", response="misread")
    completions = [misread, rated(8, "4", response="good"), rated(4, "2", response="bad")]
    raw = {"instruction": "Q", "completions": completions}
    counted, left_out = AnswerCounts(), AnswerCounts()
    (pair,) = preferences(raw, Rule(), counts=counted)
    assert isinstance(pair, dict)
    assert (pair["chosen_model"], counted.disagreeing, counted.answers) == ("misread", 1, 3)
    (pair,) = preferences(raw, Rule(disagreement=0.5), counts=left_out)
    assert isinstance(pair, dict)
    assert (pair["chosen_model"], left_out.disagreeing, left_out.answers) == ("good", 1, 2)
    completions.pop()
    assert reason(raw, disagreement=0.5) == Reason.DISAGREEING


def test_two_answers_of_one_text_are_a_dropped_row_among_the_pairs() -> None:
    raw = row(9, 5, 1)
    raw["completions"][1]["response"] = "answer 0"
    made = preferences(raw, Rule(rejected="every_pair"))
    assert [pair.reason if isinstance(pair, Dropped) else "pair" for pair in made] == ["identical_pair", "pair", "pair"]
    assert models(raw) == [("m0", "m2")]


def test_no_completions_are_an_empty_row() -> None:
    assert reason({"instruction": "Q", "completions": []}) == Reason.EMPTY
    assert reason({"messages": [{"role": "user", "content": "Q"}], "completions": [], "error": "503"}) == Reason.EMPTY


# --- what holds for any row

SCORES = st.lists(st.one_of(st.none(), st.integers(1, 10), st.sampled_from(["N/A", 2.5, 7.25])), min_size=1, max_size=6)
RULES = st.builds(
    Rule,
    seed=st.integers(0, 50),
    rejected=st.sampled_from(["random_lower", "lowest", "every_pair"]),
    margin=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)


@given(SCORES, RULES)
def test_the_margin_is_kept_and_a_null_neither_wins_nor_loses(scores: list[Any], rule: Rule) -> None:
    known = [score for score in scores if isinstance(score, (int, float))]
    apart = [(a, b) for a, b in itertools.permutations(known, 2) if a - b > rule.margin]
    if not apart:
        assert reason(row(*scores), **dataclasses.asdict(rule)) == (Reason.TIE if known else Reason.UNSCORED)
        return
    pairs = preferences(row(*scores), rule)
    assert len(pairs) == (len(apart) if rule.rejected == "every_pair" else 1)
    for pair in pairs:
        assert isinstance(pair, dict)
        high, low = (scores[int(pair[model][1:])] for model in ("chosen_model", "rejected_model"))
        assert (high, low) == (pair["score_chosen"], pair["score_rejected"])
        assert high - low > rule.margin
        if rule.rejected != "every_pair":
            assert high == max(known)
        if rule.rejected == "lowest":
            assert low == min(known)


@given(st.lists(SCORES, min_size=1, max_size=8), RULES, st.data())
def test_any_partition_gives_the_same_rows_and_counts(all_scores: list[list[Any]], rule: Rule, data: Any) -> None:
    rows = [row(*scores, instruction=f"Q{n}") for n, scores in enumerate(all_scores)]
    lines = [(f"f:{n}", json.dumps(raw).encode()) for n, raw in enumerate(rows)]
    cut = data.draw(st.integers(0, len(lines)))
    order = data.draw(st.permutations(lines))
    whole, parts = made([lines], rule), made([order[:cut], order[cut:]], rule)
    assert whole[0] == parts[0]
    assert dataclasses.asdict(whole[1]) == dataclasses.asdict(parts[1])
    assert whole[1].rows == len(rows)


def made(blocks: list[list[tuple[str, bytes]]], rule: Rule) -> tuple[list[str], AnswerCounts]:
    """Rows in a canonical order, and the counts of all blocks."""
    rows, counts = [], AnswerCounts()
    for block in filter(None, blocks):
        raw = pa.table({"source": [source for source, _ in block], "line": [line for _, line in block]})
        pairs, found = to_pairs(raw, rule=rule)
        rows += [json.dumps(each, sort_keys=True) for each in pairs.to_pylist()]
        counts.add(found.answers)
    return sorted(rows), counts
