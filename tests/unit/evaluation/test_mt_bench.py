"""MT-Bench from recorded judgments of single answers: the last one counts, an error is no result, means by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.fastchat_files import Judgment, Judgments, read_questions, single_judgments
from zephyr_ray.evaluation.mt_bench import Mean, as_json, judge_variance, summarise, table_lines
from zephyr_ray.evaluation.recorded_files import Recorded

QUESTIONS: dict[int | str, dict[str, Any]] = {
    1: {"category": "writing", "turns": ["write", "again"]},
    2: {"category": "math", "turns": ["add", "and now"]},
    3: {"category": "math", "turns": ["one turn"]},
}


def row(question: int, turn: int, score: object, model: str = "a", **others: object) -> dict[str, Any]:
    return {
        "question_id": question,
        "model": model,
        "judge": ["gpt-4", "single-v1"],
        "user_prompt": "the question, and an answer",
        "judgment": "a judgment",
        "score": score,
        "turn": turn,
        **others,
    }


def judged(*rows: dict[str, Any]) -> Judgments[Judgment]:
    return single_judgments(Recorded(list(rows), broken=0))


def test_by_hand() -> None:
    rows = [row(1, 1, 8), row(1, 2, 6.5), row(2, 1, 4), row(2, 2, -1), row(1, 1, 10, "b"), row(2, 1, 5)]
    read = judged(*rows)
    assert (len(read.judgments), read.repeated, read.lines) == (5, 1, 6)
    first, second = summarise(read.judgments, QUESTIONS)
    assert (first.model, second.model) == ("b", "a")
    assert [mean and mean.value for mean in second.turns] == [(8 + 5) / 2, 6.5]
    assert second.average is not None
    assert second.average.value == pytest.approx((8 + 6.5 + 5) / 3)  # of all scores, not of the turns' means
    assert {name: mean and mean.value for name, mean in second.categories.items()} == {"writing": 7.25, "math": 5.0}
    # 5 answers are expected: 4 have a judgment, of which 3 have a score
    assert (second.average.n, second.expected, second.missing, second.problems) == (3, 5, 1, {"no_score": 1})
    assert (first.expected, first.missing, first.turns[1]) == (5, 4, None)
    assert first.average == Mean(10.0, 1, None)


def test_without_questions_what_any_model_was_judged_on_is_expected() -> None:
    one, other = summarise(judged(row(1, 1, 8), row(1, 2, 8), row(1, 1, 4, "b")).judgments, {})
    assert (one.expected, one.missing, other.expected, other.missing) == (2, 0, 2, 1)
    assert one.categories == {}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"score": -1}, "no_score"),
        ({"score": None}, "no_score"),
        ({"score": "8"}, "no_score"),
        ({"score": True}, "no_score"),
        ({"score": float("nan")}, "no_score"),
        ({"score": -1, "judgment": " \n"}, "empty"),
        ({"score": -1, "judgment": "$ERROR$"}, "judge_error"),
        ({"score": 5, "judgment": "$ERROR$"}, "judge_error"),
        ({"score": 1, "user_prompt": "[The Start of Assistant's Answer]\n$ERROR$\n[The End]"}, "answer_error"),
        ({"score": 9, "user_prompt": "What does $ERROR$ mean?\n\n[The Start]\nAn error.\n[The End]"}, None),
        ({"score": 0}, None),
    ],
)
def test_an_error_is_no_result(given: dict[str, Any], problem: str | None) -> None:
    (judgment,) = judged(row(1, 1, 8) | given).judgments
    assert judgment.problem == problem
    assert judgment.score == (None if problem else given["score"])


def test_the_last_judgment_counts_even_if_it_is_an_error() -> None:
    read = judged(row(1, 1, 8), row(1, 1, -1))
    assert [judgment.problem for judgment in read.judgments] == ["no_score"]
    assert read.repeated == 1


def test_other_judges_and_samples_are_no_repetition() -> None:
    rows = [row(1, 1, 6), row(1, 1, 8, sample=1), row(1, 1, 7, judge=["claude", "single-v1"]), row(1, 1, 5, sample=1)]
    read = judged(*rows)
    assert sorted(judgment.score or 0 for judgment in read.judgments) == [5, 6, 7]
    assert read.repeated == 1


def test_rows_that_do_not_say_whose_answer_they_judge_are_counted() -> None:
    broken = [row(1, 3, 5), row(1, 1, 5, model=""), row(1, 1, 5) | {"question_id": None}, {"score": 5}]
    read = judged(row(1, 1, 5), *broken)
    assert (len(read.judgments), read.incomplete, read.lines) == (1, 4, 5)


def test_variance_of_the_judge_by_hand() -> None:
    scores = {(1, 1): [6, 8], (1, 2): [4, 4, 7], (2, 1): [9]}
    rows = [
        row(question, turn, score, sample=sample)
        for (question, turn), several in scores.items()
        for sample, score in enumerate(several)
    ]
    # squares around 7: 1 + 1; around 5: 1 + 1 + 4; degrees of freedom 1 + 2
    assert judge_variance(judged(*rows).judgments) == (pytest.approx(8 / 3), 2)
    assert judge_variance(judged(row(1, 1, 5)).judgments) == (None, 0)
    (scores_,) = summarise(judged(*rows).judgments, {})
    assert "a: variance of the judge 2.667 over 2 answers with several scores" in table_lines([scores_])


def test_the_interval_is_over_questions() -> None:
    """Ten judgments of each of two questions are two questions: the mean is one, the other, or between."""
    rows = [row(question, 1, 2 * question, sample=sample) for question in (1, 4) for sample in range(10)]
    (scores,) = summarise(judged(*rows).judgments, {})
    assert scores.average == Mean(5.0, 20, (2.0, 8.0))


def test_table_and_json() -> None:
    scores = summarise(judged(row(1, 1, 8), row(2, 1, 0), row(1, 2, -1, judgment="")).judgments, QUESTIONS)
    told = as_json(scores)["models"]["a"]
    assert {name: told[name] for name in ("turn_1", "turn_2", "average", "n", "categories")} == {
        "turn_1": 4.0,
        "turn_2": None,
        "average": 4.0,
        "n": 2,
        "categories": {"writing": 8.0, "math": 0.0},
    }
    assert told["without_a_score"] == {"empty": 1}
    lines = table_lines(scores)
    assert lines[0].split() == ["model", "turn", "1", "turn", "2", "average", "n"]
    assert " ".join(lines[1].split()) == "a 4.000 (0.00 to 8.00) - 4.000 (0.00 to 8.00) 2 of 5"
    assert lines[-2:] == [
        "a: left out 1 empty, 2 without a judgment",
        "a: scores outside of 1 to 10, which count: 1",
    ]


def test_questions_are_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "question.jsonl"
    file.write_text("".join(json.dumps({"question_id": name} | each) + "\n" for name, each in QUESTIONS.items()))
    assert set(read_questions(str(file))) == {1, 2, 3}
    file.write_text('{"question_id": 1, "category": "writing", "turns": []}\n')
    with pytest.raises(UserError, match="a question has question_id, category and turns"):
        read_questions(str(file))
