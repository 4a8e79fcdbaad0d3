"""MT-Bench's questions and reference answers, and how each question is asked.

Files are those of FastChat's llm_judge, and so are the temperatures (arXiv 2306.05685; fastchat/llm_judge/common.py and
gen_api_answer.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from zephyr_ray.config.evaluation import MTBench
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import recorded_files
from zephyr_ray.evaluation.fastchat_files import TURNS, QuestionId, read_questions
from zephyr_ray.pipeline.fingerprints import content_id

Row = dict[str, Any]

TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
    "arena-hard-200": 0.0,
}
"""Sampling temperature of the answers by category."""
OTHER_TEMPERATURE = 0.7
"""Of any other category."""
WITH_REFERENCE = ("math", "reasoning", "coding", "arena-hard-200")
"""Categories whose answers are judged beside a reference."""


def read(section: MTBench) -> dict[QuestionId, Row]:
    """The questions by their ids.

    Raises:
        UserError: The file cannot be read, a question has more than two turns, or a temperature is none.
    """
    questions = read_questions(section.questions)
    for name, question in questions.items():
        turns = question["turns"]
        if len(turns) > len(TURNS) or not all(isinstance(turn, str) and turn.strip() for turn in turns):
            raise UserError(f"{section.questions}: question {name} has turns that are not one or two texts")
        wanted = question.get("required_temperature", 0)
        if recorded_files.number(wanted) is None or wanted < 0:
            raise UserError(f"{section.questions}: question {name} has required_temperature={wanted}, not a number")
    return questions


def temperature_of(question: Mapping[str, Any]) -> float:
    """The sampling temperature of a question's answers: its own, or its category's."""
    if "required_temperature" in question:
        return float(question["required_temperature"])
    return TEMPERATURES.get(question["category"], OTHER_TEMPERATURE)


def planned_answers(questions: Mapping[QuestionId, Row], model: str) -> list[Row]:
    """What a model is asked: a row for each question, with the columns of `mt_bench_answers.ANSWERS` that are known."""
    return [
        {
            "answer_id": content_id("mt_bench", name, question["turns"], model),
            "question": json.dumps(name),
            "turns": question["turns"],
            "temperature": temperature_of(question),
        }
        for name, question in questions.items()
    ]


def read_references(section: MTBench, questions: Mapping[QuestionId, Row]) -> dict[QuestionId, list[str]]:
    """Reference answers, a text for each turn, of the questions that are judged with one; none where no file is named.

    Raises:
        UserError: The file cannot be read, or lacks one of them.
    """
    if section.references is None:
        return {}
    found = read_answers(section.references)
    wanted = {name: len(each["turns"]) for name, each in questions.items() if each["category"] in WITH_REFERENCE}
    lacking = [name for name, turns in wanted.items() if len(found.get(name, [])) < turns]
    if lacking:
        raise UserError(
            f"{section.references} lacks reference answers to {len(lacking)} of {len(wanted)} questions of "
            f"{', '.join(WITH_REFERENCE[:3])} (the first is {lacking[0]}); add them, or set references to null"
        )
    return {name: found[name] for name in wanted}


def read_answers(path: str) -> dict[QuestionId, list[str]]:
    """The answers of a file in FastChat's layout by question, a text for each turn; the last ones of a question count.

    Raises:
        UserError: The file cannot be read, or a row is no answer.
    """
    answers: dict[QuestionId, list[str]] = {}
    for row in recorded_files.read(path).rows:
        turns = _turns(row)
        if turns is None or not isinstance(row.get("question_id"), int | str):
            raise UserError(f"{path}: an answer has question_id and choices with turns; {json.dumps(row)[:80]} has not")
        answers[row["question_id"]] = turns
    return answers


def _turns(row: Mapping[str, Any]) -> list[str] | None:
    """The texts of the first choice, the only one that FastChat judges."""
    choices = row.get("choices")
    first = choices[0] if isinstance(choices, Sequence) and choices else None
    turns = first.get("turns") if isinstance(first, Mapping) else None
    return turns if isinstance(turns, list) and all(isinstance(turn, str) for turn in turns) else None
