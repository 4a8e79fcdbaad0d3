"""What a judge is asked about two models' answers, and what its verdicts make."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evaluation.questions.asked import REFUSED, Model
from zephyr_ray.config.evaluation import Versus
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.own_comparisons import own_comparisons
from zephyr_ray.evaluation.questions.versus_answers import ANSWERS, answer_prompt, read_prompts
from zephyr_ray.evaluation.questions.versus_result import comparison_rows, conversation, games_of, is_decided
from zephyr_ray.evaluation.recorded_files import ERROR


def section(folder: Path, *rows: object) -> Versus:
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Versus(prompts=str(folder / "prompts.jsonl"), a="one", b="two")


def answer(text: str | None) -> dict[str, Any]:
    return {"answer": text, "tokens": None if text is None else len(text)}


def test_each_prompt_once_in_an_order_by_seed(tmp_path: Path) -> None:
    rows = [*({"prompt": f"p{number}"} for number in range(20)), {"prompt": "p3"}]
    one = [each["messages"][0]["content"] for each in read_prompts(section(tmp_path, *rows), 0)]
    other = [each["messages"][0]["content"] for each in read_prompts(section(tmp_path, *rows[::-1]), 0)]
    assert one == other
    assert sorted(one) == sorted({row["prompt"] for row in rows})
    assert [each["messages"][0]["content"] for each in read_prompts(section(tmp_path, *rows), 1)] != one


def test_what_is_no_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 2 is no prompt"):
        read_prompts(section(tmp_path, {"prompt": "x"}, {"answer": "y"}), 0)


def test_an_answer_and_a_refusal() -> None:
    row = {"prompt_id": "1", "messages": [{"role": "user", "content": "x"}]}
    model = Model("well", REFUSED)
    made = asyncio.run(answer_prompt(row, model, fields={"temperature": 0.5}))
    assert made == {"prompt_id": "1", "answer": "well", "finish_reason": "stop", "tokens": 4}
    assert model.asked == [(row["messages"], 0, {"temperature": 0.5})]
    assert asyncio.run(answer_prompt(row, model, fields={})) == {"prompt_id": "1"}
    assert made.keys() | {"error"} == set(ANSWERS.names)


def test_both_orders_are_asked(tmp_path: Path) -> None:
    prompt = {"prompt_id": "1", "messages": [{"role": "user", "content": "Say it"}]}
    first, second = games_of(section(tmp_path), prompt, [answer("hi {x}"), answer("ho")])
    assert first["user_prompt"].index("hi {x}") < first["user_prompt"].index("ho\n")
    assert second["user_prompt"].index("ho\n") < second["user_prompt"].index("hi {x}")
    assert "Say it" in first["user_prompt"]
    assert first["judgment_id"] != second["judgment_id"]
    assert [each["is_answered"] for each in games_of(section(tmp_path), prompt, [answer("hi"), answer(None)])] == [
        False,
        False,
    ]


def test_a_dialogue_is_shown_with_its_roles() -> None:
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"},
        {"role": "user", "content": "z"},
    ]
    assert conversation(messages) == "user: x\n\nassistant: y\n\nuser: z"


def test_verdicts_name_the_answer_and_not_the_place(tmp_path: Path) -> None:
    prompts = [{"prompt_id": str(number)} for number in range(5)]
    answers = [(answer("hi"), answer("hello"))] * 4 + [(answer("hi"), answer(None))]
    said = [("A", "B"), ("A", "A"), ("C", "C"), ("B", None), (None, None)]
    judged = [
        {"question": json.dumps(prompt["prompt_id"]), "game": game, "verdict": verdict}
        for prompt, verdicts in zip(prompts, said, strict=True)
        for game, verdict in zip((1, 2), verdicts, strict=True)
    ]
    rows = comparison_rows(prompts, answers, judged)
    assert [(row["verdict"], row["swapped_verdict"]) for row in rows] == [
        ("a", "a"),
        ("a", "b"),
        ("tie", "tie"),
        ("b", None),
        (None, None),
    ]
    assert (rows[0]["a_tokens"], rows[0]["b_text"], rows[4]["b_text"]) == (2, "hello", ERROR)
    found = own_comparisons("x", rows)
    assert [each.outcome for each in found] == [1.0, 0.5, 0.5, None, None]
    assert [each.problem for each in found[3:]] == ["no_verdict", "answer_error"]


def test_decided_or_not() -> None:
    rows = [{"id": number, "verdict": "a", "swapped_verdict": "a"} for number in range(20)]
    assert is_decided(rows)
    assert not is_decided(rows[:3])
    assert not is_decided([row | {"swapped_verdict": "b"} for row in rows])
    assert not is_decided([])
