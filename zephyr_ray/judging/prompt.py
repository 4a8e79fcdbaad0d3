"""Reads a row of `candidates` -> the questions that judges are asked, and each one's messages and reply schema.

Which questions, in which order the answers are shown and which prompts get the position check are functions of the
run's seed, the prompt's id and the recipe alone: partitions, retries and workers change nothing.

What is judged is foreign text. It stands between lines that carry a mark: a hash of that text, so that no text can hold
its own mark, and none can look like the beginning of another answer. The texts come first and the criterion last: the
aspects of one (judge, repeat) share all but the end of their prompts, which a server keeps from one to the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from zephyr_ray.config.feedback import LanguageModelJudges
from zephyr_ray.inference.seeds import SEED_BITS
from zephyr_ray.judging.rubrics import fill, rationale_name, rubric, scale_of
from zephyr_ray.pipeline.artifacts import content_id

Row = Mapping[str, Any]
Message = dict[str, str]

_MARK_LENGTH = 12
_HASH_BITS = 128


@dataclass(frozen=True)
class Question:
    """One conversation with one judge."""

    judge: str
    repeat: int
    is_reversed: bool
    """Part of the position check: the same question with the answers the other way round."""
    aspect: str
    order: tuple[int, ...]
    """Numbers of the completions in the row, in the order in which they are shown."""


def questions_of(row: Row, section: LanguageModelJudges, run_seed: int) -> list[Question]:
    """Every question about a row; none where it has no completions.

    All aspects of one (judge, repeat) show the answers in the same order, so that the effect of a position is not mixed
    up with that of an aspect. In the position check every one of them is asked again in reversed order.
    """
    completions = len(row["completions"])
    return [
        Question(judge.name, repeat, is_reversed, aspect, order)
        for judge in section.models
        for repeat in range(section.repeats)
        for is_reversed, orders in _showings(row["prompt_id"], completions, section, run_seed, judge.name, repeat)
        for aspect in section.aspects
        for order in orders
    ]


def _showings(
    prompt_id: str, completions: int, section: LanguageModelJudges, run_seed: int, judge: str, repeat: int
) -> Iterable[tuple[bool, list[tuple[int, ...]]]]:
    """(is_reversed, what is shown in one request each)."""
    if completions == 0:
        return
    if section.presentation == "one_by_one":
        yield False, [(number,) for number in range(completions)]
        return
    order = shown_order(run_seed, prompt_id, judge, repeat, completions)
    yield False, [order]
    if completions > 1 and is_position_checked(run_seed, prompt_id, section.position_check):
        yield True, [order[::-1]]


def shown_order(run_seed: int, prompt_id: str, judge: str, repeat: int, completions: int) -> tuple[int, ...]:
    """The completions' numbers in an order in which each permutation is equally likely."""
    return tuple(
        sorted(range(completions), key=lambda number: content_id("order", run_seed, prompt_id, judge, repeat, number))
    )


def is_position_checked(run_seed: int, prompt_id: str, share: float) -> bool:
    """Whether a prompt is among the share that is judged in both orders. A larger share only adds prompts."""
    return int(content_id("position check", run_seed, prompt_id), 16) < share * 2**_HASH_BITS


def question_seed(run_seed: int, prompt_id: str, question: Question, attempt: int) -> int:
    """The sampling seed of one request, in [0, 2^53): repeats of a judge above temperature 0 must not be copies."""
    place = (question.judge, question.repeat, question.is_reversed, question.aspect, list(question.order), attempt)
    return int(content_id("question", run_seed, prompt_id, *place), 16) % (1 << SEED_BITS)


def messages_of(question: Question, row: Row) -> list[Message]:
    """What the judge is sent: one user turn, as the templates of some judges (Gemma 2, Mistral 7B) know no other."""
    answers = [row["completions"][number]["content"] for number in question.order]
    mark = _mark(row)
    many = len(answers) > 1
    low, high = scale_of(question.aspect)
    content = fill(
        "frame",
        answers=f"{len(answers)} answers" if many else "one answer",
        each="each answer" if many else "the answer",
        mark=mark,
        conversation="\n".join(_text(f"{m['role']} message", m["content"], mark) for m in row["messages"]),
        texts="\n\n".join(_text(f"answer {place}", text, mark) for place, text in enumerate(answers, 1)),
        rubric=rubric(question.aspect),
        format=fill(
            "format",
            example=_example(question),
            rationale=rationale_name(question.aspect),
            low=str(low),
            high=str(high),
        ),
    )
    return [{"role": "user", "content": content}]


def _text(name: str, text: str, mark: str) -> str:
    """A text between its lines. An empty one is said to be so in a marked line: an answer cannot claim it of itself."""
    if not text.strip():
        return f"<<BEGIN {name} {mark}>>\n<<EMPTY {mark}>>\n<<END {name} {mark}>>"
    return f"<<BEGIN {name} {mark}>>\n{text}\n<<END {name} {mark}>>"


def _mark(row: Row) -> str:
    """A string that is in no text of the row, the same for all questions about it.

    It is a hash of the texts themselves: to hold it, a text would have to be written with its own hash in it.
    """
    texts = [each["content"] for each in (*row["messages"], *row["completions"])]
    marks = (content_id("mark", attempt, texts)[:_MARK_LENGTH] for attempt in count())
    return next(mark for mark in marks if not any(mark in text for text in texts))


def answer_key(place: int) -> str:
    """The key of the answer shown as number `place` (from 1) in a reply."""
    return f"answer_{place}"


def reply_schema(question: Question) -> dict[str, Any]:
    """JSON schema of a reply: {answer_1: {rationale, rating}, ...}, the reason before the number that follows from it.

    An object with a key for each answer, as no backend can then leave one out or give one twice; an enumeration for
    the scale, as `minimum` is not known to all of them; no references.
    """
    low, high = scale_of(question.aspect)
    reason = rationale_name(question.aspect)
    verdict = _object({reason: {"type": "string"}, "rating": {"type": "integer", "enum": [*range(low, high + 1)]}})
    return _object({answer_key(place): verdict for place, _ in enumerate(question.order, 1)})


def response_format_of(question: Question) -> dict[str, Any]:
    """The schema as `response_format` of a chat request (OpenAI's structured outputs, vLLM)."""
    return {
        "type": "json_schema",
        "json_schema": {"name": "ratings", "strict": True, "schema": reply_schema(question)},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _example(question: Question) -> str:
    """The form of a reply, with words where the rating stands: a number there would be copied."""
    low, high = scale_of(question.aspect)
    verdict = {rationale_name(question.aspect): "...", "rating": f"<{low} to {high}>"}
    lines = [
        f"  {json.dumps(answer_key(place))}: {json.dumps(verdict)}".replace(
            f'"<{low} to {high}>"', f"<{low} to {high}>"
        )
        for place, _ in enumerate(question.order, 1)
    ]
    return _braces(lines)


def _braces(lines: Sequence[str]) -> str:
    return "{\n" + ",\n".join(lines) + "\n}"
