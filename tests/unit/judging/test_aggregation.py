"""From ratings to a row: hand-worked means and spreads, what counts, and what fits the schema."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.unit.judging.examples import question, row
from zephyr_ray.judging.aggregation import Outcome, judged_row, scored_row
from zephyr_ray.judging.parsing.rating import Rating
from zephyr_ray.schemas import ASPECTS, JUDGMENTS


def outcome(aspect: str, order: tuple[int, ...], *ratings: float | None, **fields: Any) -> Outcome:
    given = tuple(
        Rating(rating, None if rating is None else f"{aspect} {number}")
        for number, rating in zip(order, ratings, strict=True)
    )
    return Outcome(question(aspect, order, **fields), given, ())


OUTCOMES = [
    outcome("honesty", (1, 0), 4, 2, judge="a"),
    outcome("overall", (1, 0), 10, 3, judge="a"),
    outcome("overall", (0, 1), 9, 1, judge="a", is_reversed=True),
    outcome("honesty", (0, 1), 5, None, judge="b"),
    outcome("overall", (0, 1), 6, 7, judge="b"),
    outcome("overall", (0, 1), 3, None, judge="b", repeat=1),
]


def test_means_and_spreads_by_hand() -> None:
    """Answer 0: honesty 2, 5 -> 3.5, spread 1.5; overall 3, 6, 3 -> 4, spread sqrt(2).

    Answer 1: honesty 4 alone -> no spread; overall 10, 7 -> 8.5, spread 1.5. The reversed 9 and 1 count nowhere.
    """
    first, second = judged_row(row("x", "y"), OUTCOMES)["completions"]
    assert first["annotations"]["honesty"] == {"rating": 3.5, "spread": 1.5, "rationale": "honesty 0"}
    assert (first["overall_score"], first["critique"]) == (4.0, "overall 0")
    assert first["overall_spread"] == pytest.approx(2**0.5)
    assert second["annotations"]["honesty"] == {"rating": 4.0, "spread": None, "rationale": "honesty 1"}
    assert (second["overall_score"], second["overall_spread"]) == (8.5, 1.5)


def test_every_opinion_is_kept_with_the_place_in_which_its_answer_stood() -> None:
    first, _ = judged_row(row("x", "y"), OUTCOMES)["completions"]
    kept = [(o["judge"], o["repeat"], o["is_reversed"], o["position"], o["rating"]) for o in first["opinions"]]
    assert kept == [
        ("a", 0, False, 1, 2),
        ("a", 0, False, 1, 3),
        ("a", 0, True, 0, 9),
        ("b", 0, False, 0, 5),
        ("b", 0, False, 0, 6),
        ("b", 1, False, 0, 3),
    ]


def test_nothing_is_made_up() -> None:
    unread = judged_row(row("x"), [outcome("honesty", (0,), None)])["completions"][0]
    assert unread["annotations"]["honesty"] == {"rating": None, "spread": None, "rationale": None}
    assert [unread["annotations"][aspect] for aspect in ASPECTS if aspect != "honesty"] == [None] * 3
    assert (unread["overall_score"], unread["overall_spread"], unread["critique"]) == (None, None, None)
    rated = judged_row(row("x"), [outcome("honesty", (0,), 5)])["completions"][0]
    assert rated["overall_score"] is None


def test_one_by_one_gives_each_answer_its_own_opinion() -> None:
    made = judged_row(row("x", "y"), [outcome("overall", (0,), 2), outcome("overall", (1,), 8)])
    assert [each["overall_score"] for each in made["completions"]] == [2, 8]
    assert [len(each["opinions"]) for each in made["completions"]] == [1, 1]


def test_failed_requests_are_named_once_for_each_judge_and_reason() -> None:
    null = (Rating(None, None),)
    failed = [
        Outcome(question(aspect, (0,), judge=judge), null, (), reason)
        for judge, aspect, reason in [
            ("a", "honesty", "busy\n now"),
            ("a", "overall", "busy now"),
            ("b", "overall", "x" * 900),
        ]
    ]
    error = judged_row(row("x"), failed)["error"]
    assert error == "a (honesty, overall): busy now; b (overall): " + "x" * 300
    assert judged_row({**row("x"), "error": "an earlier stage's"}, [])["error"] is None


@pytest.mark.parametrize(
    "made",
    [
        judged_row(row("x", "y"), OUTCOMES),
        judged_row(row(), []),
        scored_row(row("x", "y"), [1.5, None]),
        scored_row(row(), []),
    ],
)
def test_rows_fit_the_schema_and_keep_the_candidates(made: dict[str, Any]) -> None:
    assert set(made) == set(JUDGMENTS.names)
    fields = {field.name for field in JUDGMENTS.field("completions").type.value_type}
    assert all(set(each) == fields for each in made["completions"])
    assert pa.Table.from_pylist([made], schema=JUDGMENTS).to_pylist() == [made]
    assert [each["content"] for each in made["completions"]] == ["x", "y"][: len(made["completions"])]


def test_a_score_alone_is_an_overall_score() -> None:
    made = scored_row(row("x", "y"), [1.5, None])
    assert [each["overall_score"] for each in made["completions"]] == [1.5, None]
    assert all(each["opinions"] == [] and each["critique"] is None for each in made["completions"])
    assert made["replies"] == []
