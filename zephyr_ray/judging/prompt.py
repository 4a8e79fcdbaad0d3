"""The questions that judges are asked about a row of `candidates`, with their messages and reply schemas.

The questions, the order in which completions are shown and the choice of prompts for the position check depend only on
the run's seed, the prompt's id and the recipe, not on partitions, retries or workers.

The judged text is untrusted. It stands between lines with a mark, a hash of the text, so that no text can contain its
own mark or imitate the beginning of another completion. The texts come first and the criterion last, so that the
aspects of one (judge, repeat) share a long prefix, which a server can cache.
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
from zephyr_ray.pipeline.fingerprints import content_id

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
    """Whether it belongs to the position check, which shows the completions in reversed order."""
    aspect: str
    order: tuple[int, ...]
    """Numbers of the completions in the row, in the order in which they are shown."""


def questions_of(row: Row, section: LanguageModelJudges, run_seed: int) -> list[Question]:
    """All questions about a row; none if it has no completions.

    All aspects of one (judge, repeat) show the completions in the same order, so that effects of position and aspect
    are not confounded. The position check asks each of them again in reversed order.
    """
    completions = len(row["completions"])
    return [
        Question(judge.name, repeat, is_reversed, aspect, order)
        for judge in section.models
        for repeat in range(section.repeats)
        for is_reversed, orders in _shown_groups(row["prompt_id"], completions, section, run_seed, judge.name, repeat)
        for aspect in section.aspects
        for order in orders
    ]


def _shown_groups(
    prompt_id: str, completions: int, section: LanguageModelJudges, run_seed: int, judge: str, repeat: int
) -> Iterable[tuple[bool, list[tuple[int, ...]]]]:
    """(is_reversed, the completions' numbers shown in each request)."""
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
    """The completions' numbers in a random order; all permutations are equally likely."""
    return tuple(
        sorted(range(completions), key=lambda number: content_id("order", run_seed, prompt_id, judge, repeat, number))
    )


def is_position_checked(run_seed: int, prompt_id: str, share: float) -> bool:
    """Whether a prompt belongs to the share judged in both orders. A larger share only adds prompts."""
    return int(content_id("position check", run_seed, prompt_id), 16) < share * 2**_HASH_BITS


def question_seed(run_seed: int, prompt_id: str, question: Question, attempt: int) -> int:
    """The sampling seed of one request, in [0, 2^53): repeats above temperature 0 must differ."""
    place = (question.judge, question.repeat, question.is_reversed, question.aspect, list(question.order), attempt)
    return int(content_id("question", run_seed, prompt_id, *place), 16) % (1 << SEED_BITS)


def messages_of(question: Question, row: Row) -> list[Message]:
    """The messages to the judge: one user turn, because some templates (Gemma 2, Mistral 7B) accept no other."""
    answers = [row["completions"][number]["content"] for number in question.order]
    mark = _mark(row)
    many = len(answers) > 1
    low, high = scale_of(question.aspect)
    content = fill(
        "frame",
        answers=f"{len(answers)} answers" if many else "one answer",
        each="each answer" if many else "the answer",
        mark=mark,
        conversation="\n".join(_marked_text(f"{m['role']} message", m["content"], mark) for m in row["messages"]),
        texts="\n\n".join(_marked_text(f"answer {place}", text, mark) for place, text in enumerate(answers, 1)),
        rubric=rubric(question.aspect),
        format=fill(
            "format",
            example=_example_reply(question),
            rationale=rationale_name(question.aspect),
            low=str(low),
            high=str(high),
        ),
    )
    return [{"role": "user", "content": content}]


def _marked_text(name: str, text: str, mark: str) -> str:
    """A text between its marked lines. A marked line says that a text is empty, so no text can claim it of itself."""
    if not text.strip():
        return f"<<BEGIN {name} {mark}>>\n<<EMPTY {mark}>>\n<<END {name} {mark}>>"
    return f"<<BEGIN {name} {mark}>>\n{text}\n<<END {name} {mark}>>"


def _mark(row: Row) -> str:
    """A string that occurs in no text of the row, the same for all questions about it.

    It is a hash of the texts, so a text that contained it would have to contain its own hash.
    """
    texts = [each["content"] for each in (*row["messages"], *row["completions"])]
    marks = (content_id("mark", attempt, texts)[:_MARK_LENGTH] for attempt in count())
    return next(mark for mark in marks if not any(mark in text for text in texts))


def answer_key(place: int) -> str:
    """The key, in a reply, of the completion shown as number `place` (from 1)."""
    return f"answer_{place}"


def reply_schema(question: Question) -> dict[str, Any]:
    """JSON schema of a reply: {answer_1: {rationale, rating}, ...}, with the rationale before the rating it leads to.

    It is an object with a key for each completion, so that none can be missing or occur twice. The scale is an
    enumeration, because not every backend supports `minimum`; there are no references.
    """
    low, high = scale_of(question.aspect)
    reason = rationale_name(question.aspect)
    verdict = _object_schema(
        {reason: {"type": "string"}, "rating": {"type": "integer", "enum": [*range(low, high + 1)]}}
    )
    return _object_schema({answer_key(place): verdict for place, _ in enumerate(question.order, 1)})


def response_format_of(question: Question) -> dict[str, Any]:
    """The schema as `response_format` of a chat request (OpenAI's structured outputs, vLLM)."""
    return {
        "type": "json_schema",
        "json_schema": {"name": "ratings", "strict": True, "schema": reply_schema(question)},
    }


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _example_reply(question: Question) -> str:
    """An example reply with a placeholder as rating, because judges would copy a number."""
    low, high = scale_of(question.aspect)
    verdict = {rationale_name(question.aspect): "...", "rating": f"<{low} to {high}>"}
    lines = [
        f"  {json.dumps(answer_key(place))}: {json.dumps(verdict)}".replace(
            f'"<{low} to {high}>"', f"<{low} to {high}>"
        )
        for place, _ in enumerate(question.order, 1)
    ]
    return _join_in_braces(lines)


def _join_in_braces(lines: Sequence[str]) -> str:
    return "{\n" + ",\n".join(lines) + "\n}"
