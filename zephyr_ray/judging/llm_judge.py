"""Reads a question and a way to ask a language model -> what became of it, with every raw reply."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from zephyr_ray.config.feedback import LanguageModelJudges
from zephyr_ray.judging.aggregation import Outcome
from zephyr_ray.judging.parsing.rating import Reading, Unreadable, storable
from zephyr_ray.judging.parsing.reply import complaint_message, parse_reply
from zephyr_ray.judging.prompt import Message, Question, messages_of, response_format_of

_CUT = "it was cut off at the length limit, so the reasons must be shorter"


class NoReply(Exception):  # noqa: N818
    """A judge gave no reply, retries and all. The message says why."""


class CutReply(Exception):  # noqa: N818
    """A reply that ends where the length limit was (finish_reason `length`)."""

    def __init__(self, raw: str):
        super().__init__("cut off at the length limit")
        self.raw = raw


class Complete(Protocol):
    """Asks a judge once. Retries of the transport, budget and seeds are the caller's."""

    def __call__(
        self, messages: Sequence[Message], attempt: int, response_format: Mapping[str, Any] | None, /
    ) -> Awaitable[str]:
        """The raw text of the reply.

        Raises:
            NoReply: There is none.
            CutReply: It is not whole.
        """


async def ask(question: Question, row: Mapping[str, Any], section: LanguageModelJudges, complete: Complete) -> Outcome:
    """Asks until a reply can be read, at most 1 + `parse_retries` times; then the ratings are null.

    Every further attempt holds the question, the last reply and what is wrong with it: earlier ones would only make
    the prompt longer. A cut reply is never read: what it ends in may be the first digit of a rating. What else than its
    two exceptions `complete` raises is the caller's and goes through.
    """
    asked = messages_of(question, row)
    response_format = response_format_of(question) if section.structured else None
    messages = asked
    replies: list[dict[str, Any]] = []
    for attempt in range(1 + section.parse_retries):
        try:
            raw, is_cut = await complete(messages, attempt, response_format), False
        except CutReply as cut:
            raw, is_cut = cut.raw, True
        except NoReply as failure:
            return Outcome(question, _null(question), tuple(replies), str(failure) or "no reply")
        try:
            if is_cut:
                raise Unreadable(_CUT)
            readings = tuple(parse_reply(raw, question))
        except Unreadable as unreadable:
            replies.append(_reply(question, attempt, raw, unreadable.complaint))
            messages = [*asked, *_again(raw, unreadable.complaint)]
        else:
            return Outcome(question, readings, (*replies, _reply(question, attempt, raw, None)))
    return Outcome(question, _null(question), tuple(replies))


def _again(raw: str, complaint: str) -> list[Message]:
    """The turns that ask again. Servers refuse an empty assistant turn."""
    return [
        {"role": "assistant", "content": storable(raw).strip() or "(empty)"},
        {"role": "user", "content": complaint_message(complaint)},
    ]


def _null(question: Question) -> tuple[Reading, ...]:
    return tuple(Reading(None, None) for _ in question.order)


def _reply(question: Question, attempt: int, raw: str, complaint: str | None) -> dict[str, Any]:
    """A record of `schemas.JUDGE_REPLY`."""
    return {
        "judge": question.judge,
        "repeat": question.repeat,
        "is_reversed": question.is_reversed,
        "aspect": question.aspect,
        "order": list(question.order),
        "attempt": attempt,
        "raw": storable(raw),
        "complaint": complaint,
    }
