"""Drop or trim dialogues that nobody should imitate: roles out of order, empty or cut turns, loops, text that is none,
and turns or dialogues of a wrong length."""

from __future__ import annotations

import functools
import re

from zephyr_ray.config.cleaning import Quality
from zephyr_ray.data.cleaning.cut_off import cut_off
from zephyr_ray.data.cleaning.repetition import asks_for_repetition, repeated_unit
from zephyr_ray.data.cleaning.roles import in_order
from zephyr_ray.data.cleaning.steps import Step
from zephyr_ray.data.cleaning.unreadable import unreadable_part
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.schemas import Dropped, Reason

_NO_OUTPUT = re.compile(r"\W*no\s?(?:out|in)put\W*", re.IGNORECASE)
"""What Alpaca's generator writes where it has nothing to say."""


def step(section: Quality) -> Step:
    """The step that a recipe's section describes."""
    return functools.partial(of_quality, section=section)


def of_quality(messages: list[Message], *, section: Quality) -> list[Message]:
    """The messages without turns that nobody answered, and without the exchange whose answer was cut off.

    Raises:
        Dropped: The dialogue as a whole is no good; the detail is what is wrong.
    """
    kept = in_order(messages, drop_leading_turns=section.leading_answer == "turn")
    kept = _without_cut_answer(kept, section)
    for message in kept:
        if _is_empty(message["content"]):
            raise Dropped(Reason.EMPTY, f"{message['role']}: {message['content']}")
        if (part := unreadable_part(message["content"])) is not None:
            raise Dropped(Reason.UNREADABLE, part)
    _check_length(kept, section)
    _check_loops(kept)
    return kept


def _without_cut_answer(messages: list[Message], section: Quality) -> list[Message]:
    """The messages up to the last answer that is neither cut off nor empty."""
    if section.cut_answer == "keep":
        return messages
    end = len(messages)
    while (why := _why_unfinished(messages[end - 1]["content"])) is not None:
        end -= 2
        if section.cut_answer == "dialogue" or end < 2 or messages[end - 1]["role"] == "system":
            raise Dropped(*why)
    return messages if end == len(messages) else messages[:end]


def _why_unfinished(answer: str) -> tuple[Reason, str] | None:
    if _is_empty(answer):
        return Reason.EMPTY, f"assistant: {answer}"
    ending = cut_off(answer)
    return None if ending is None else (Reason.CUT_OFF, ending)


def _is_empty(text: str) -> bool:
    """Whether a reader sees nothing, or only that there is nothing."""
    if text[:1].isalnum() and len(text) > 12:
        return False
    return _NO_OUTPUT.fullmatch(text) is not None or not any(
        character.isprintable() and not character.isspace() for character in text
    )


def _check_length(messages: list[Message], section: Quality) -> None:
    turns = sum(message["role"] == "user" for message in messages)
    if turns < section.min_turns:
        raise Dropped(Reason.TOO_SHORT, f"{turns} user turns")
    if section.max_turns is not None and turns > section.max_turns:
        raise Dropped(Reason.TOO_LONG, f"{turns} user turns")
    for message in messages:
        length = len(message["content"])
        if message["role"] == "assistant" and length < section.min_characters:
            raise Dropped(Reason.TOO_SHORT, message["content"])
        if section.max_characters is not None and length > section.max_characters:
            raise Dropped(Reason.TOO_LONG, f"{length} characters: {message['content']}")


def _check_loops(messages: list[Message]) -> None:
    """Refuses an answer that repeats itself, unless a user asked for that."""
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    unit = next((found for answer in answers if (found := repeated_unit(answer)) is not None), None)
    if unit is None or any(asks_for_repetition(each["content"]) for each in messages if each["role"] == "user"):
        return
    raise Dropped(Reason.REPETITIVE, unit)
