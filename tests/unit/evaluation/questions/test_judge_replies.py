"""A rating or a verdict is read, or there is none: never a default, and never one of several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.evaluation.fastchat_files import single_judgments
from zephyr_ray.evaluation.questions.judge_replies import Read, rating_of, read, response_format, verdict_of
from zephyr_ray.evaluation.recorded_files import Recorded
from zephyr_ray.evaluation.recorded_files import read as read_file


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Good. Rating: [[8]]", 8),
        ("Rating: [[7.5]]", 7.5),
        ("[[3]] at first, but then [[9]]", 3),  # FastChat takes the first
        ("Rating: [6]", 6),
        ("it reads list[0], Rating: [[2]]", 2),
        ("it reads list[0] and list[4]", None),  # FastChat counts it as a rating of 0
        ("Rating: [[11]]", None),
        ("Rating: [[0]]", None),
        ("Rating: 8", None),
        ("Rating: [[-3]]", None),
        ("", None),
    ],
)
def test_a_rating(text: str, rating: float | None) -> None:
    assert rating_of(text) == rating


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A is better: [[A]]", "A"),
        ("[[B]]. Again: [[B]]", "B"),
        ("[[C]]", "C"),
        ("either [[A]] or [[B]]", None),  # FastChat takes A
        ("[A]", None),
        ("[[D]]", None),
        ("", None),
    ],
)
def test_a_verdict(text: str, verdict: str | None) -> None:
    assert verdict_of(text) == verdict


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"explanation": "so so", "rating": 7}, Read("so so\n\nRating: [[7]]", rating=7)),
        ({"explanation": "it says [[9]]", "rating": 2}, Read("it says [ [9]]\n\nRating: [[2]]", rating=2)),
        ({"rating": 10}, Read("Rating: [[10]]", rating=10)),
        ({"explanation": "x", "rating": 0}, None),
        ({"explanation": "x", "rating": "7"}, None),
        ({"explanation": "x", "rating": True}, None),
        ({"explanation": "x"}, None),
        ([7], None),
    ],
)
def test_a_rating_under_the_schema(value: Any, expected: Read | None) -> None:
    text = json.dumps(value)
    found = read(text, "rating", structured=True)
    assert found == (expected or Read(text))
    if expected:  # a program that reads FastChat's files finds the same
        assert rating_of(found.text) == expected.rating


def test_a_verdict_under_the_schema() -> None:
    found = read('{"explanation": "not [[A]]", "verdict": "B"}', "verdict", structured=True)
    assert (found.verdict, verdict_of(found.text)) == ("B", "B")
    for text in ('{"verdict": "D"}', '{"verdict": "A"', "[[A]]"):
        assert read(text, "verdict", structured=True) == Read(text)


def test_the_schema_asks_for_the_reason_first() -> None:
    for kind, values in (("rating", [*range(1, 11)]), ("verdict", ["A", "B", "C"])):
        schema = response_format(kind)["json_schema"]["schema"]  # type: ignore[arg-type]
        assert [*schema["properties"]] == ["explanation", kind] == schema["required"]
        assert schema["properties"][kind]["enum"] == values


def test_recorded_judgments_are_read_as_fastchat_read_them(outside_data: Path) -> None:
    """480 of GPT-4's, of which FastChat recorded the score."""
    rows = read_file(str(outside_data / "benchmarks" / "mt_bench_judgments_gpt-4.jsonl")).rows
    assert len(rows) == 480
    counted = {id(row): single_judgments(Recorded([row], 0)).judgments[0] for row in rows}
    differ = [row for row in rows if rating_of(row["judgment"]) != counted[id(row)].score]
    assert [(row["question_id"], row["score"]) for row in differ] == []
