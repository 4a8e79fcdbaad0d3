"""What teachers are asked, from the texts under prompts/, and the fingerprint of these texts. The words are our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from string import Template

from zephyr_ray.pipeline.fingerprints import content_id

Message = dict[str, str]

PROMPT_VERSION = 1
"""Increased whenever code changes what a teacher is sent or how its replies are read."""
_NAMES = ("instructions", "refined", "next_message")


def more_instructions(shown: Sequence[str], new: int) -> str:
    """Asks for `new` instructions beside those that are shown."""
    examples = "\n\n".join(f"{number}. {text}" for number, text in enumerate(shown, 1))
    first, last = len(shown) + 1, len(shown) + new
    return _fill(
        "instructions", shown=str(len(shown)), new=str(new), examples=examples, first=str(first), last=str(last)
    )


def refined_instruction(messages: Sequence[Message], answer: str) -> str:
    """Asks for a better instruction than the one that was answered."""
    return _fill("refined", conversation=_transcript(messages), answer=answer)


def next_message(messages: Sequence[Message]) -> str:
    """Asks for the user's next message in a conversation."""
    return _fill("next_message", conversation=_transcript(messages))


def fingerprint() -> str:
    """A hash of all texts and the code's version; part of the stage's fingerprint because both decide the dialogues."""
    return content_id(PROMPT_VERSION, _texts())


def _transcript(messages: Sequence[Mapping[str, str]]) -> str:
    """The text of a single message, or the messages with their roles."""
    said = [message for message in messages if message["role"] != "system"]
    if len(said) == 1:
        return said[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in said)


def _fill(name: str, **values: str) -> str:
    """A text with its placeholders filled. Values are not substituted again: a `$` in a message stays."""
    return Template(_texts()[name]).substitute(values)


@cache
def _texts() -> dict[str, str]:
    """Every text that teachers are sent, by name."""
    folder = resources.files("zephyr_ray").joinpath("generation", "prompts")
    return {name: folder.joinpath(f"{name}.txt").read_text(encoding="utf-8").strip() for name in _NAMES}
