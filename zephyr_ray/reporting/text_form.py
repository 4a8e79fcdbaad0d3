"""The form of answers: lists, bold text, headings, openings and length. Judges reward it, and policies overdo it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zephyr_ray.data.cleaning.folded_words import words_of

_Z95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution
_OPENING_WORDS = 3
_READ = 400  # characters in which the first words are looked for
_MARKS = {
    "lists": (re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE), 2),
    "bold": (re.compile(r"\*\*(?=\S)[^*\n]+(?<=\S)\*\*|__(?=\S)[^_\n]+(?<=\S)__"), 1),
    "headings": (re.compile(r"^[ \t]*#{1,6}[ \t]+\S", re.MULTILINE), 1),
}
"""Markdown, and how often it has to occur in a text to count: a list has two items or more."""
MARKS = tuple(_MARKS)


@dataclass(frozen=True)
class Form:
    """What texts of one kind look like."""

    texts: int
    marked: dict[str, int]
    """Texts that have each of `MARKS`."""
    openings: Counter[str]
    """Texts by their first three words, folded."""
    characters: int

    @property
    def mean_characters(self) -> float:
        return self.characters / self.texts if self.texts else 0.0

    def share(self, what: str) -> float:
        return self.marked[what] / self.texts if self.texts else 0.0


@dataclass(frozen=True)
class Gap:
    """How much more frequent something is on one side, as a difference of shares with its 95 % interval."""

    what: str
    first: float
    second: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.first - self.second


def form(texts: Iterable[str]) -> Form:
    """The form of some texts."""
    found, openings = Counter[str](), Counter[str]()
    count = characters = 0
    for text in texts:
        count, characters = count + 1, characters + len(text)
        found.update(name for name, (pattern, least) in _MARKS.items() if len(pattern.findall(text)) >= least)
        openings[" ".join(words_of(text[:_READ])[:_OPENING_WORDS])] += 1
    return Form(count, {name: found[name] for name in MARKS}, openings, characters)


def gaps(first: Form, second: Form) -> list[Gap]:
    """What the first side has more or less of than the second: the marks, and the first side's most frequent opening.

    The interval is the normal one of a difference of two independent shares (Wald). It takes the texts as independent:
    several answers to one prompt are not quite.
    """
    if not first.texts or not second.texts:
        return []
    made = [_gap(name, first.marked[name], first.texts, second.marked[name], second.texts) for name in MARKS]
    text, count = first.openings.most_common(1)[0]
    return [*made, _gap(f"the opening \u201c{text}\u201d", count, first.texts, second.openings[text], second.texts)]


def _gap(what: str, a: int, of_a: int, b: int, of_b: int) -> Gap:
    p, q = a / of_a, b / of_b
    half = _Z95 * math.sqrt(p * (1 - p) / of_a + q * (1 - q) / of_b)
    return Gap(what, p, q, p - q - half, p - q + half)


def openings(sides: Sequence[Form], most: int = 5) -> list[tuple[str, list[float]]]:
    """The most frequent openings of all sides together, and each side's share of texts that begin so."""
    together = sum((side.openings for side in sides), Counter[str]())
    return [
        (text, [side.openings[text] / side.texts if side.texts else 0.0 for side in sides])
        for text, _ in together.most_common(most)
    ]
