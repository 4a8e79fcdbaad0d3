"""What a judge is asked: every text is in it, a text is never filled in itself, and a wrong file is one line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.questions import judge_prompts
from zephyr_ray.evaluation.questions.judge_prompts import fields, fingerprint, prompts


@pytest.mark.parametrize("key", [*prompts(None)])
def test_every_text_is_in_our_prompts_once(key: tuple[judge_prompts.Kind, bool, int]) -> None:
    kind, has_reference, turn = key
    turns = [f"asked-{number} {{answer}} {{0}}" for number in range(turn)]
    whose = ("a", "b") if kind == "verdict" else ("a",)
    shown = [[f"said-{who}-{number} {{" for number in range(turn)] for who in whose]
    references = [f"reference-{number}" for number in range(turn)] if has_reference else []
    text = prompts(None)[key].text(dict(fields(turns, shown, references)))
    for each in (*itertools.chain(*shown), *references):
        assert text.count(each) == 1
    assert all(1 <= text.count(each) <= 2 for each in turns)
    assert ("[[4]]" in text) == (kind == "rating")
    assert all((mark in text) == (kind == "verdict") for mark in ("[[A]]", "[[B]]", "[[C]]"))
    assert prompts(None)[key].messages(text) == [{"role": "user", "content": text}]


def row(name: str, template: str, output_format: str) -> str:
    return json.dumps(
        {"name": name, "system_prompt": "You judge.", "prompt_template": template, "output_format": output_format}
    )


def file_of(folder: Path, template: str = "{question} {answer}", output_format: str = "[[rating]]") -> str:
    """A file as FastChat's, whose first prompt is given."""
    templates = {
        ("rating", 1): "{question} {answer}",
        ("rating", 2): "{question_1} {answer_1} {question_2} {answer_2}",
        ("verdict", 1): "{question} {answer_a} {answer_b}",
        ("verdict", 2): "{question_1} {answer_a_1} {answer_b_1} {question_2} {answer_a_2} {answer_b_2}",
    }
    rows = [
        row(name, templates[kind, turn], "[[rating]]" if kind == "rating" else "[[A]]")
        for (kind, _, turn), name in judge_prompts._FASTCHAT.items()
    ]
    rows[0] = row("single-v1", template, output_format)
    path = folder / "judge_prompts.jsonl"
    path.write_text("\n".join(rows))
    return str(path)


def test_a_file_of_prompts(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    prompt = prompts(path)["rating", False, 1]
    assert (prompt.name, prompt.text({"question": "q", "answer": "a {b}"})) == ("single-v1", "q a {b}")
    assert prompt.messages("x") == [{"role": "system", "content": "You judge."}, {"role": "user", "content": "x"}]
    before = fingerprint(path)
    assert before != fingerprint(None)
    assert fingerprint(file_of(tmp_path, "{question}: {answer}")) != before


@pytest.mark.parametrize(
    ("template", "output_format", "message"),
    [
        ("{question} {answer_a}", "[[rating]]", "prompt single-v1 cannot be filled in: KeyError: 'answer_a'"),
        ("{question", "[[rating]]", "cannot be filled in: ValueError"),
        ("{} {answer}", "[[rating]]", "cannot be filled in: IndexError"),
        ("{question} {answer}", "[[rating_a,rating_b]]", r"has .* output_format \[\[rating\]\]"),
    ],
)
def test_a_wrong_prompt(tmp_path: Path, template: str, output_format: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prompts(file_of(tmp_path, template, output_format))


def test_a_prompt_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "judge_prompts.jsonl"
    path.write_text(row("single-v1", "{question} {answer}", "[[rating]]"))
    with pytest.raises(UserError, match=r"has no prompt single-math-v1; give FastChat's judge_prompts.jsonl"):
        prompts(str(path))


def test_fastchats_own_file(outside_data: Path) -> None:
    found = prompts(str(outside_data / "benchmarks" / "fastchat_judge_prompts.jsonl"))
    assert [each.name for each in found.values()] == [*judge_prompts._FASTCHAT.values()]
