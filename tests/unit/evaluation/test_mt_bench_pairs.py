"""MT-Bench from recorded judgments of pairs: two orders that disagree are a tie, as FastChat counts them."""

from __future__ import annotations

from typing import Any

import pytest

from zephyr_ray.evaluation.fastchat_files import PairJudgment, is_pairwise, pair_judgments
from zephyr_ray.evaluation.mt_bench_pairs import Orders, as_json, orders, records, table_lines
from zephyr_ray.evaluation.recorded_files import Recorded


def row(question: int, first: object, second: object, other: str = "b", **others: object) -> dict[str, Any]:
    games = {"g1_winner": first, "g2_winner": second, "g1_judgment": "[[A]]", "g2_judgment": "[[B]]"}
    return {"question_id": question, "model_1": "a", "model_2": other, "turn": 1, **games, **others}


def judged(*rows: dict[str, Any]) -> list[PairJudgment]:
    return pair_judgments(Recorded(list(rows), broken=0)).judgments


GAMES = [
    ("model_1", "model_1"),  # a wins
    ("model_2", "model_2"),  # b wins
    ("model_2", "model_2"),
    ("model_1", "model_2"),  # whichever is shown first
    ("model_2", "model_1"),  # whichever is shown second
    ("tie", "model_1"),
    ("tie", "tie"),
    ("error", "model_1"),  # no result
    ("model_1", None),
]


def test_by_hand() -> None:
    judgments = judged(*(row(number, *games) for number, games in enumerate(GAMES)))
    best, other = records(judgments)
    assert (best.model, best.win, best.loss, best.tie, best.n, best.expected) == ("b", 2, 1, 4, 7, 9)
    assert (other.model, other.win, other.loss, other.tie) == ("a", 1, 2, 4)
    assert best.win_rate_adjusted == pytest.approx((2 + 4 / 2) / 7)
    assert orders(judgments) == Orders(n=7, same=4, first_shown=1, second_shown=1, tie_in_one=1)
    told = as_json(judgments)
    assert told["swap_consistency"] == pytest.approx(4 / 7)
    assert told["without_a_verdict"] == {"no_verdict": 2}
    assert told["models"]["a"]["win_rate"] == pytest.approx(1 / 7)
    assert told["models"]["a"]["loss_rate"] == pytest.approx(2 / 7)
    assert table_lines(judgments)[-1] == "left out 2 no_verdict"


def test_three_models() -> None:
    """The models' rates are what `show_result --mode pairwise-all` of fschat 0.2.36 prints for these rows."""
    judgments = judged(row(1, "model_1", "model_1"), row(1, "model_2", "model_2", "c"), row(2, "tie", "tie", "c"))
    told = as_json(judgments)
    assert {name: each["win_rate_adjusted"] for name, each in told["models"].items()} == pytest.approx(
        {"c": 0.75, "a": 0.5, "b": 0.0}
    )
    assert list(told["models"]) == ["c", "a", "b"]
    assert [(each["model_1"], each["model_2"], each["win_rate_adjusted"]) for each in told["pairs"]] == [
        ("a", "b", 1.0),
        ("a", "c", 0.25),
    ]


@pytest.mark.parametrize(
    ("others", "problem"),
    [
        ({"g2_user_prompt": "[The Start of Assistant A's Answer]\n$ERROR$\n[The End]"}, "answer_error"),
        ({"g1_judgment": "$ERROR$"}, "judge_error"),
        ({"g2_judgment": "", "g2_winner": "error"}, "empty"),
        ({"g1_winner": "inconsistent"}, "no_verdict"),
        ({}, None),
    ],
)
def test_an_error_is_no_result(others: dict[str, Any], problem: str | None) -> None:
    (judgment,) = judged(row(1, "model_1", "model_1") | others)
    assert judgment.problem == problem
    assert judgment.first_game == (None if problem else "model_1")


def test_a_later_judgment_replaces_an_earlier_one() -> None:
    rows = [row(1, "model_1", "model_1"), row(1, "tie", "tie", turn=2), row(1, "model_2", "model_2")]
    read = pair_judgments(Recorded(rows, broken=0))
    assert [(judgment.turn, judgment.first_game) for judgment in read.judgments] == [(2, "tie"), (1, "model_2")]
    assert read.repeated == 1


def test_which_files_are_pairwise() -> None:
    assert is_pairwise(Recorded([row(1, "tie", "tie")], 0))
    assert not is_pairwise(Recorded([{"question_id": 1, "model": "a", "score": 5, "turn": 1}], 0))
