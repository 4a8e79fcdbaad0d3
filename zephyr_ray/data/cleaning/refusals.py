"""Refusals and disclaimers of assistants: drop the dialogue or the turn, or take the disclaimer out."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from zephyr_ray.config.cleaning import Refusals
from zephyr_ray.data.cleaning.disclaimers import without_disclaimers
from zephyr_ray.data.cleaning.refused_turns import refusal_in
from zephyr_ray.data.cleaning.steps import Step
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.schemas import Dropped, Reason


def step(section: Refusals) -> Step:
    """The step that a recipe's section describes."""
    return functools.partial(without_refusals, section=section)


def without_refusals(messages: list[Message], *, section: Refusals) -> list[Message]:
    """The messages without the assistant's refusals and disclaimers.

    A turn goes with the user's turn before it, so roles that alternated still do.

    Raises:
        Dropped: The dialogue has to go, or no assistant's turn is left; the detail is the sentence.
    """
    kept: list[Message] = []
    removed: tuple[Reason, str] | None = None
    for message in messages:
        if message["role"] != "assistant":
            kept.append(message)
            continue
        content, why = _cleaned(_question(kept), message["content"], section)
        if content is None:
            removed = removed or why
            if kept and kept[-1]["role"] == "user":
                kept.pop()
        else:
            kept.append(message if content == message["content"] else {**message, "content": content})
    if removed and not any(message["role"] == "assistant" for message in kept):
        raise Dropped(*removed)
    return messages if kept == messages else kept


def _question(before: Sequence[Message]) -> str:
    return before[-1]["content"] if before and before[-1]["role"] == "user" else ""


def _cleaned(question: str, answer: str, section: Refusals) -> tuple[str | None, tuple[Reason, str] | None]:
    """The answer as it stays, or None and why its turn goes.

    Raises:
        Dropped: The dialogue goes.
    """
    refusal = refusal_in(question, answer)
    if refusal is not None:
        return _removed(answer, section.refusals, Reason.REFUSAL, refusal)
    if section.disclaimers == "keep":
        return answer, None
    cleaned = without_disclaimers(question, answer)
    if not cleaned.found:
        return answer, None
    if section.disclaimers != "sentence":
        return _removed(answer, section.disclaimers, Reason.DISCLAIMER, cleaned.found[0])
    if not cleaned.text:
        return _removed(answer, section.refusals, Reason.REFUSAL, cleaned.found[0])
    return cleaned.text, None


def _removed(answer: str, remove: str, reason: Reason, sentence: str) -> tuple[str | None, tuple[Reason, str] | None]:
    if remove == "dialogue":
        raise Dropped(reason, sentence)
    return (answer, None) if remove == "keep" else (None, (reason, sentence))
