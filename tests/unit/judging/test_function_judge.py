"""A program as judge: what a recipe may name, and what it may return."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.unit.judging.examples import row
from zephyr_ray.embedded import world
from zephyr_ray.errors import UserError
from zephyr_ray.judging.function_judge import judge_by_program, load_judge, program_fingerprints


def length(messages: list[dict[str, str]], answer: str) -> float | None:
    assert messages == [{"role": "user", "content": "Name a bird"}]
    return len(answer) if answer else None


def test_each_answer_gets_the_functions_score() -> None:
    made = judge_by_program(row("owl", "", "raven"), load_judge(f"{__name__}:length"))
    assert [each["overall_score"] for each in made["completions"]] == [3.0, None, 5.0]


def test_a_function_cannot_change_the_row() -> None:
    candidates = row("owl", "raven")
    judge_by_program(candidates, lambda messages, answer: messages.clear())
    assert candidates == row("owl", "raven")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("length", "write it as module:function"),
        (":length", "write it as module:function"),
        ("no.such.module:f", "No module named 'no'"),
        ("math:no_such", "math has no function no_such"),
        ("math:pi", "math has no function pi"),
        (".program:f", "write it as module:function"),
    ],
)
def test_a_name_that_is_no_function_is_one_line(function: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        load_judge(function)
    assert str(error.value).startswith(f"judging.judge.function={function}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("score", ["7", float("nan"), float("inf"), [7], object(), 10**400])
def test_what_is_no_score_is_refused(score: Any) -> None:
    with pytest.raises(UserError, match="return a finite number, or None"):
        judge_by_program(row("x"), lambda messages, answer: score)


def test_other_kinds_of_numbers_are_scores() -> None:
    score: Any = Fraction(5, 2)
    made = judge_by_program(row("x"), lambda messages, answer: score)
    assert made["completions"][0]["overall_score"] == 2.5


def test_what_a_function_raises_goes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        judge_by_program(row("x"), lambda messages, answer: 1 / 0)


def test_the_embedded_worlds_judge_is_its_own_rating() -> None:
    judge = load_judge("zephyr_ray.embedded.world:judge")
    for instruction in world.prompts("preferences", 20, 3):
        for flaw in (None, "chatter", "refusal"):
            answer = world.respond(instruction, flaw, Random(1))
            score = judge([{"role": "user", "content": instruction}], answer)
            assert score == world.rate(instruction, answer)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": "Name a bird"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": "Which number is the largest: x"}],
        [{"role": "assistant", "content": "Even or odd: 17"}],
        [{"role": "user", "content": "Even or odd: 17"}] * 2,
    ],
)
def test_it_gives_other_prompts_no_score(messages: list[dict[str, str]]) -> None:
    assert world.judge(messages, "odd") is None


def test_a_system_message_does_not_matter_to_it() -> None:
    user = {"role": "user", "content": "Even or odd: 17"}
    assert world.judge([{"role": "system", "content": "Be brief"}, user], "odd") == 10


def test_another_program_is_another_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    prints = []
    for name, source in (("first_judge", "1.0"), ("second_judge", "2.0"), ("third_judge", "1.0")):
        (tmp_path / f"{name}.py").write_text(f"def judge(messages, answer):\n    return {source}\n")
        prints.append(program_fingerprints(f"{name}:judge"))
    assert prints[0] == prints[2] != prints[1]
    with pytest.raises(UserError, match="not written in Python"):
        program_fingerprints("math:sqrt")
