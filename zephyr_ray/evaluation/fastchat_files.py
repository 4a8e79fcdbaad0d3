"""Reads files of FastChat's llm_judge: judgments of single answers and of pairs, and questions.

FastChat appends to its files, so a judgment that was made again stands in them twice, and the last one counts. It
writes a score of -1 where a reply had none, and keeps `$ERROR$` as the judgment or as the answer where a request
failed. Neither is a result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeGuard, TypeVar

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.recorded_files import ERROR, Recorded, Row, number, read

Turn = Literal[1, 2]
TURNS: tuple[Turn, Turn] = (1, 2)
QuestionId = int | str

Problem = Literal["answer_error", "judge_error", "empty", "no_score", "no_verdict"]
"""Why a judgment has no result: the answer is `$ERROR$`, the judgment is, it is empty, or it says none."""

_ERROR_LINE = re.compile(rf"^\s*{re.escape(ERROR)}\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Judgment:
    """A judge's score of one answer."""

    question: QuestionId
    model: str
    judge: str
    """Name of the judge's model."""
    turn: Turn
    score: float | None
    """As FastChat records it, on the judge prompt's scale of 1 to 10. None: there is none."""
    problem: Problem | None
    """Why there is no score."""

    @property
    def answer(self) -> tuple[QuestionId, Turn]:
        return self.question, self.turn


@dataclass(frozen=True)
class PairJudgment:
    """A judge's verdicts on two answers, shown in both orders."""

    question: QuestionId
    model_1: str
    model_2: str
    turn: Turn
    first_game: str | None
    """Winner with model_1's answer shown first: `model_1`, `model_2` or `tie`. None: there is no verdict."""
    second_game: str | None
    """The same with model_2's answer shown first."""
    problem: Problem | None


J = TypeVar("J")


@dataclass(frozen=True)
class Judgments(Generic[J]):
    """What a file holds, and what of it does not count."""

    judgments: list[J]
    """The last one of each answer and judge, with those that have no result."""
    lines: int
    broken: int
    """Lines that are no JSON object."""
    incomplete: int
    """Rows without a question, a model or a turn of 1 or 2."""
    repeated: int
    """Judgments that a later one replaces."""


def is_pairwise(recorded: Recorded) -> bool:
    """Whether the rows are judgments of pairs."""
    return any("g1_winner" in row or "g2_winner" in row for row in recorded.rows)


def single_judgments(recorded: Recorded) -> Judgments[Judgment]:
    """Judgments of single answers (`gpt-4_single.jsonl`).

    Several judgments of an answer by one judge are told apart by the key `sample`; FastChat's own files have none.
    """
    return _last_of_each(recorded, _single)


def pair_judgments(recorded: Recorded) -> Judgments[PairJudgment]:
    """Judgments of pairs in both orders (`gpt-4_pair.jsonl`)."""
    return _last_of_each(recorded, _pair)


def read_questions(path: str) -> dict[QuestionId, Row]:
    """The questions of a benchmark by their ids (`question.jsonl`).

    Raises:
        UserError: The file cannot be read, or a row lacks `question_id`, `category` or `turns`.
    """
    questions: dict[QuestionId, Row] = {}
    recorded = read(path)
    if recorded.broken:
        raise UserError(f"{path}: {recorded.broken} lines are no JSON objects; fetch the questions again")
    for row in recorded.rows:
        identity, turns = row.get("question_id"), row.get("turns")
        if not (_is_id(identity) and isinstance(row.get("category"), str) and isinstance(turns, list) and turns):
            raise UserError(f"{path}: a question has question_id, category and turns; {json.dumps(row)[:80]} lacks one")
        questions[identity] = row
    return questions


def _last_of_each(recorded: Recorded, parse: Callable[[Row], tuple[Hashable, J] | None]) -> Judgments[J]:
    judgments: dict[Hashable, J] = {}
    complete = 0
    for row in recorded.rows:
        parsed = parse(row)
        if parsed:
            complete += 1
            key, judgment = parsed
            judgments.pop(key, None)
            judgments[key] = judgment
    incomplete = len(recorded.rows) - complete
    return Judgments(
        list(judgments.values()), recorded.lines, recorded.broken, incomplete, repeated=complete - len(judgments)
    )


def _single(row: Row) -> tuple[Hashable, Judgment] | None:
    question, model, turn = row.get("question_id"), row.get("model"), row.get("turn")
    if not (_is_id(question) and _is_name(model) and turn in TURNS):
        return None
    score = number(row.get("score"))
    problem = _problem([row.get("user_prompt")], [row.get("judgment")], score is None or score == -1, "no_score")
    judgment = Judgment(question, model, _judge(row), turn, None if problem else score, problem)
    return (question, model, json.dumps(row.get("judge")), turn, json.dumps(row.get("sample"))), judgment


def _pair(row: Row) -> tuple[Hashable, PairJudgment] | None:
    question, model_1, model_2 = row.get("question_id"), row.get("model_1"), row.get("model_2")
    turn = row.get("turn", 1)  # pairs that were made of single scores have none
    if not (_is_id(question) and _is_name(model_1) and _is_name(model_2) and turn in TURNS):
        return None
    prompts, judgments, games = ([row.get(f"g{game}_{key}") for game in (1, 2)] for key in _PAIR_KEYS)
    first, second = (game if game in ("model_1", "model_2", "tie") else None for game in games)
    problem = _problem(prompts, judgments, first is None or second is None, "no_verdict")
    if problem:
        first = second = None
    judgment = PairJudgment(question, model_1, model_2, turn, first, second, problem)
    return (question, model_1, model_2, json.dumps(row.get("judge")), turn, json.dumps(row.get("sample"))), judgment


_PAIR_KEYS = ("user_prompt", "judgment", "winner")


def _problem(
    prompts: Sequence[object], judgments: Sequence[object], has_no_result: bool, otherwise: Problem
) -> Problem | None:
    """Why a judgment has no result; None if it has one."""
    if any(isinstance(prompt, str) and _ERROR_LINE.search(prompt) for prompt in prompts):
        return "answer_error"
    texts = [text.strip() for text in judgments if isinstance(text, str)]
    if ERROR in texts:
        return "judge_error"
    if has_no_result:
        return "empty" if "" in texts else otherwise
    return None


def _judge(row: Mapping[str, object]) -> str:
    """FastChat writes [model, prompt]."""
    judge = row.get("judge")
    return str(judge[0] if isinstance(judge, list) and judge else judge or "")


def _is_id(value: object) -> TypeGuard[QuestionId]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value)
