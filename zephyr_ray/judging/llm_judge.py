"""Ask a language model a judge's question until its reply can be parsed, and keep every raw reply."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from zephyr_ray.config.feedback import LanguageModelJudges
from zephyr_ray.judging.aggregation import Outcome
from zephyr_ray.judging.parsing.rating import Rating, Unreadable
from zephyr_ray.judging.parsing.reply import complaint_message, parse_reply
from zephyr_ray.judging.prompt import Message, Question, messages_of, response_format_of
from zephyr_ray.schemas import storable

_CUT = "it was cut off at the length limit, so the reasons must be shorter"


class NoReply(Exception):  # noqa: N818
    """A judge gave no reply, even after retries. The message says why."""


class CutReply(Exception):  # noqa: N818
    """A reply cut off at the length limit (finish_reason `length`)."""

    def __init__(self, raw: str):
        super().__init__("cut off at the length limit")
        self.raw = raw


class Complete(Protocol):
    """Asks a judge once. The implementation handles retries of the transport, budget and seeds."""

    def __call__(
        self, messages: Sequence[Message], attempt: int, response_format: Mapping[str, Any] | None, /
    ) -> Awaitable[str]:
        """The raw text of the reply.

        Raises:
            NoReply: There is no reply.
            CutReply: The reply is incomplete.
        """


async def ask(question: Question, row: Mapping[str, Any], section: LanguageModelJudges, complete: Complete) -> Outcome:
    """Asks until a reply can be read, at most 1 + `parse_retries` times; after that the ratings are null.

    Each further attempt sends the question, the last reply and the complaint about it; older replies would only make
    the prompt longer. A cut reply is never read, because its end may be the first digit of a rating. Exceptions of
    `complete` other than its two propagate.
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
            return Outcome(question, _null_ratings(question), tuple(replies), str(failure) or "no reply")
        try:
            if is_cut:
                raise Unreadable(_CUT)
            ratings = tuple(parse_reply(raw, question))
        except Unreadable as unreadable:
            replies.append(_reply_record(question, attempt, raw, unreadable.complaint))
            messages = [*asked, *_retry_messages(raw, unreadable.complaint)]
        else:
            return Outcome(question, ratings, (*replies, _reply_record(question, attempt, raw, None)))
    return Outcome(question, _null_ratings(question), tuple(replies))


def _retry_messages(raw: str, complaint: str) -> list[Message]:
    """The turns that ask again. Servers refuse an empty assistant turn, so an empty reply is named."""
    return [
        {"role": "assistant", "content": storable(raw).strip() or "(empty)"},
        {"role": "user", "content": complaint_message(complaint)},
    ]


def _null_ratings(question: Question) -> tuple[Rating, ...]:
    return tuple(Rating(None, None) for _ in question.order)


def _reply_record(question: Question, attempt: int, raw: str, complaint: str | None) -> dict[str, Any]:
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
