"""MT-Bench: what is asked at which temperature, what the judge is shown, and what FastChat's files hold of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evaluation.questions.asked import REFUSED, Model
from zephyr_ray.config.evaluation import MTBench
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.fastchat_files import QuestionId, pair_judgments, single_judgments
from zephyr_ray.evaluation.questions import mt_bench_questions
from zephyr_ray.evaluation.questions.judging import judge_answer
from zephyr_ray.evaluation.questions.mt_bench_answers import answer_question
from zephyr_ray.evaluation.questions.mt_bench_judgments import Answers, planned
from zephyr_ray.evaluation.questions.mt_bench_result import pair_rows, single_row
from zephyr_ray.evaluation.recorded_files import Recorded

QUESTIONS: list[dict[str, Any]] = [
    {"question_id": 81, "category": "writing", "turns": ["write", "again"]},
    {"question_id": 111, "category": "math", "turns": ["add", "and now"]},
    {"question_id": "x", "category": "stem", "turns": ["one turn"]},
]
REFERENCES = [{"question_id": 111, "choices": [{"turns": ["two", "three"]}]}]


def section(folder: Path, questions: Any = QUESTIONS, references: Any = REFERENCES, **fields: Any) -> MTBench:
    paths = {}
    for name, rows in (("questions", questions), ("references", references)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths[name] = str(folder / name)
    return MTBench.model_validate({**paths, **fields})


@pytest.mark.parametrize(
    ("question", "temperature"),
    [
        ({"category": "writing"}, 0.7),
        ({"category": "math"}, 0.0),
        ({"category": "humanities"}, 0.1),
        ({"category": "of my own"}, 0.7),
        ({"category": "math", "required_temperature": 0.3}, 0.3),
    ],
)
def test_temperatures(question: dict[str, Any], temperature: float) -> None:
    assert mt_bench_questions.temperature_of(question) == temperature


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"turns": ["one", "two", "three"]}, "question 1 has turns that are not one or two texts"),
        ({"turns": ["one", 2]}, "question 1 has turns that are not one or two texts"),
        ({"required_temperature": "hot"}, "required_temperature=hot, not a number"),
    ],
)
def test_wrong_questions(tmp_path: Path, question: dict[str, Any], message: str) -> None:
    row = {"question_id": 1, "category": "writing", "turns": ["write"], **question}
    with pytest.raises(UserError, match=message):
        mt_bench_questions.read(section(tmp_path, [row]))


def test_references(tmp_path: Path) -> None:
    bench = section(tmp_path)
    questions = mt_bench_questions.read(bench)
    assert mt_bench_questions.read_references(bench, questions) == {111: ["two", "three"]}
    assert mt_bench_questions.read_references(bench.model_copy(update={"references": None}), questions) == {}
    short = section(tmp_path, references=[{"question_id": 111, "choices": [{"turns": ["two"]}]}])
    with pytest.raises(UserError, match=r"lacks reference answers to 1 of 1 questions .* \(the first is 111\)"):
        mt_bench_questions.read_references(short, questions)
    wrong = section(tmp_path, references=[{"question_id": 111, "choices": []}])
    with pytest.raises(UserError, match="an answer has question_id and choices with turns"):
        mt_bench_questions.read_references(wrong, questions)


def answered(model: Model, turns: list[str]) -> dict[str, Any]:
    row = {"answer_id": "id", "question": "81", "turns": turns, "temperature": 0.7}
    return asyncio.run(answer_question(row, model, fields={"max_tokens": 9}))


def test_the_second_turn_sees_the_first_answer() -> None:
    model = Model("first", "second")
    row = answered(model, ["one", "two"])
    assert (row["answers"], row["finish_reasons"], row["tokens"]) == (["first", "second"], ["stop", "stop"], [5, 6])
    user, said, again = (
        {"role": r, "content": c} for r, c in (("user", "one"), ("assistant", "first"), ("user", "two"))
    )
    assert [(messages, number) for messages, number, _ in model.asked] == [([user], 0), ([user, said, again], 1)]
    assert all(fields == {"temperature": 0.7, "max_tokens": 9} for _, _, fields in model.asked)


def test_after_a_refusal_nothing_is_asked() -> None:
    model = Model(REFUSED)
    assert answered(model, ["one", "two"])["answers"] == []
    assert len(model.asked) == 1
    assert answered(Model("first", REFUSED), ["one", "two"])["answers"] == ["first"]


OWN: dict[QuestionId, list[str]] = {81: ["w1", "w2"], 111: ["m1"], "x": ["s1"]}
OTHERS: dict[QuestionId, list[str]] = {81: ["W1", "W2"], 111: ["M1", "M2"]}


def test_what_is_planned(tmp_path: Path) -> None:
    """Five answers there should be, of two models together: the model lacks one, the baseline another."""
    bench = section(tmp_path, mode="both", baseline="base", samples=2)
    rows = planned(bench, Answers("mine", OWN, "base", OTHERS))
    assert rows == planned(bench, Answers("mine", OWN, "base", OTHERS))
    assert len(rows) == len({row["judgment_id"] for row in rows}) == 5 * 3 * 2
    lacking = Counter((row["question"], row["turn"], row["game"]) for row in rows if not row["is_answered"])
    assert lacking == {("111", 2, game): 2 for game in (0, 1, 2)} | {('"x"', 1, game): 2 for game in (1, 2)}
    by_place = {(row["question"], row["turn"], row["game"]): row for row in rows}
    assert [by_place["81", 1, game]["prompt"] for game in (0, 1)] == ["single", "pair"]
    assert by_place["111", 2, 2]["prompt"] == "pair-reference-multi-turn"
    first, second = (by_place["81", 2, game]["user_prompt"] for game in (1, 2))
    assert first.index("w2") < first.index("W2")
    assert second.index("W2") < second.index("w2")
    # Other answers are other judgments; the baseline alone is scored and not compared with itself.
    changed = planned(bench, Answers("mine", OWN | {81: ["w1", "new"]}, "base", OTHERS))
    ids = {row["judgment_id"] for row in rows}
    assert sum(row["judgment_id"] not in ids for row in changed) == 3 * 2
    assert {row["game"] for row in planned(bench, Answers("base", OTHERS))} == {0}
    assert planned(bench.model_copy(update={"mode": "pairwise"}), Answers("base", OTHERS)) == []


def judged(row: dict[str, Any], *replies: Any, structured: bool = False) -> dict[str, Any]:
    model = Model(*replies)
    made = asyncio.run(judge_answer(row, model, fields={"temperature": 0}, structured=structured))
    assert not model._replies
    return {**made, "error": None}


def test_fastchats_files(tmp_path: Path) -> None:
    bench = section(tmp_path, QUESTIONS[:1], mode="both", baseline="base")
    rows = planned(bench, Answers("mine", {81: ["w1"]}, "base", OTHERS))
    replies = {(1, 0): "fine [[7]]", (1, 1): "[[A]]", (1, 2): "[[B]]"}  # the model's answer is better in both orders
    made = [judged(row, *[replies[row["turn"], row["game"]]] if row["is_answered"] else []) for row in rows]
    first, second = [single_row(row, "mine", "gpt") for row in made if row["game"] == 0]
    assert (first["score"], first["judge"], first["turn"], first["question_id"]) == (7.0, ["gpt", "single"], 1, 81)
    assert (second["score"], second["judgment"], second["turn"]) == (-1, "$ERROR$", 2)
    singles = single_judgments(Recorded([first, second], broken=0))
    assert [(each.score, each.problem) for each in singles.judgments] == [(7.0, None), (None, "answer_error")]
    pairs = pair_judgments(Recorded([*pair_rows(made, "mine", "base", "gpt")], broken=0))
    games = [(each.model_1, each.first_game, each.second_game, each.problem) for each in pairs.judgments]
    assert games == [("mine", "model_1", "model_1", None), ("mine", None, None, "answer_error")]


@pytest.mark.parametrize(
    ("reply", "problem"),
    [("no mark", "no_score"), (" ", "empty"), (REFUSED, "judge_error"), ("[[8]]", None)],
)
def test_a_reply_that_is_no_result_says_why(tmp_path: Path, reply: Any, problem: str | None) -> None:
    (row, *_) = planned(section(tmp_path), Answers("mine", OWN))
    made = judged(row, reply)
    assert (made["problem"], made["rating"]) == (problem, 8 if problem is None else None)
    read = single_judgments(Recorded([single_row(made, "mine", "gpt")], broken=0))
    assert [each.problem for each in read.judgments] == [problem]


def test_a_schema_is_asked_for_and_told(tmp_path: Path) -> None:
    (row, *_) = planned(section(tmp_path), Answers("mine", OWN))
    model = Model('{"explanation": "well", "rating": 4}')
    made = asyncio.run(judge_answer(row, model, fields={"max_tokens": 5}, structured=True))
    assert (made["rating"], made["judgment"]) == (4, "well\n\nRating: [[4]]")
    ((messages, _, fields),) = model.asked
    assert messages[-1]["content"].startswith(row["user_prompt"])
    assert "JSON object" in messages[-1]["content"].removeprefix(row["user_prompt"])
    assert fields["response_format"]["json_schema"]["name"] == "rating"
