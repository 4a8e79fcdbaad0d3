"""The words that instructions begin with: a teacher that repeats itself begins many of them alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from zephyr_ray.data.cleaning.folded_words import words_of

LENGTHS = (1, 3)
"""Words of an opening."""
MOST_SHOWN = 20

_READ = 400  # characters of an instruction in which its first words are looked for


class Opening(NamedTuple):
    text: str
    share: float
    """Of the instructions that begin so."""
    seeds_share: float | None
    """The same of the seeds; None where there are none."""


def first_message(messages: Sequence[Mapping[str, str]]) -> str:
    """The user's first message; empty where there is none."""
    return next((message["content"] for message in messages if message["role"] == "user"), "")


def openings(instructions: Sequence[str], seeds: Sequence[str], words: int) -> list[Opening]:
    """The most frequent openings of instructions, folded (`cleaning.folded_words`), beside those of the seeds.

    Args:
        instructions: Their texts. One with fewer words than an opening is an opening as a whole.
        seeds: Texts of seeds, if there are any.
        words: How many words an opening has.
    """
    found, of_seeds = _counts(instructions, words), _counts(seeds, words)
    frequent = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:MOST_SHOWN]
    return [
        Opening(text, count / len(instructions), of_seeds[text] / len(seeds) if seeds else None)
        for text, count in frequent
    ]


def _counts(texts: Iterable[str], words: int) -> Counter[str]:
    return Counter(" ".join(words_of(text[:_READ])[:words]) for text in texts)
