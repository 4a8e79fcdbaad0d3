"""The tasks of the embedded world: their instructions, and the one right answer of each.

An instruction asks for something, may ask for a format, and ends with a list:

    Sort these words, one per line: tree, moon, bird

A list is answered with commas, as in the prompt, unless the instruction asks for another format. The answer follows
from the text alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal["words", "letters", "word", "number"]

# fmt: off
WORDS = (
    "ant", "apple", "bird", "boat", "cake", "cat", "corn", "dog", "egg", "fish", "fox", "goat", "hat", "ink", "jam",
    "key", "lamp", "leaf", "lion", "milk", "moon", "nut", "owl", "pear", "rain", "ship", "star", "tent", "tree", "wall",
    "wolf", "yard",
)
# fmt: on
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiou"
COMMAS = ", "

SEPARATORS = {", one per line": "\n", ", with semicolons": "; ", ", with commas": COMMAS}
"""The separator of the answer's items, by the request for it."""
CAPITALS = (", in capitals", ", in upper case")
"""Requests for upper case."""


@dataclass(frozen=True)
class Family:
    """One kind of task: its phrasings, how the items of its list are drawn, and the items of the right answer.

    A phrasing may name one item of the list in quotes (`{item}`); it is the second argument of `answer`, else "".
    """

    name: str
    kind: Kind
    phrasings: tuple[str, ...]
    draw: Callable[[Random], list[str]]
    answer: Callable[[Sequence[str], str], list[str]]


@dataclass(frozen=True)
class Task:
    """A parsed instruction: the items of the answer, in order and in lower case, and their format."""

    family: str
    kind: Kind
    items: tuple[str, ...]
    separator: str
    capitals: bool

    @property
    def answer(self) -> str:
        text = self.separator.join(self.items)
        return text.upper() if self.capitals else text


def parse(instruction: str) -> Task:
    """Parses an instruction.

    Raises:
        ValueError: The text is not an instruction of this world.
    """
    head, colon, listed = instruction.rpartition(": ")
    request = next((text for text in (*SEPARATORS, *CAPITALS) if head.endswith(text)), "")
    asked = head.removesuffix(request)
    item = re.search(r'"(\w+)"', asked)
    family = _FAMILY_OF.get(asked.replace(item[0], '"{item}"') if item else asked)
    if not colon or family is None or request not in requests(family.kind):
        raise ValueError(f"not an instruction of the embedded world: {instruction[:80]!r}")
    items = family.answer(listed.split(COMMAS), item[1] if item else "")
    return Task(family.name, family.kind, tuple(items), SEPARATORS.get(request, COMMAS), request in CAPITALS)


def draw(rng: Random) -> str:
    """Draws an instruction; all families are equally likely, and so are the phrasings of one."""
    family = rng.choice(FAMILIES)
    items = family.draw(rng)
    asked = rng.choice(family.phrasings).format(item=rng.choice(items))
    request = rng.choice(requests(family.kind)) if rng.random() < _ASKS_FOR_FORM else ""
    return f"{asked}{request}: {COMMAS.join(items)}"


def requests(kind: Kind) -> tuple[str, ...]:
    """The requests for a format that fit a kind of answer; the empty one always does."""
    if kind == "number":
        return ("",)
    return ("", *CAPITALS) if kind == "word" else ("", *SEPARATORS, *CAPITALS)


_ASKS_FOR_FORM = 0.6


def _draw_words(rng: Random) -> list[str]:
    return rng.sample(WORDS, 3)


def _draw_words_with_repeat(rng: Random) -> list[str]:
    words = rng.sample(WORDS, 2)
    words.insert(rng.randint(0, 2), rng.choice(words))
    return words


def _draw_two_to_five_words(rng: Random) -> list[str]:
    return rng.sample(WORDS, rng.randint(2, 5))


def _draw_letters(rng: Random) -> list[str]:
    return rng.sample(LETTERS, 3)


def _draw_letters_with_vowels(rng: Random) -> list[str]:
    vowels = rng.randint(1, 2)
    letters = rng.sample(VOWELS, vowels) + rng.sample(sorted(set(LETTERS) - set(VOWELS)), 3 - vowels)
    rng.shuffle(letters)
    return letters


def _draw_repeated_letters(rng: Random) -> list[str]:
    return rng.choices(rng.sample(LETTERS, 2), k=3)


def _draw_digits(rng: Random) -> list[str]:
    return rng.sample("123456789", 3)


def _draw_number(rng: Random) -> list[str]:
    return [str(rng.randint(10, 999))]


FAMILIES = (
    Family(
        "sorted_words",
        "words",
        ("Sort these words", "Put these words in alphabetical order", "Order these words from a to z"),
        _draw_words,
        lambda words, _: sorted(words),
    ),
    Family(
        "reversed_words",
        "words",
        ("Reverse this list", "List these words backwards", "Start from the end"),
        _draw_words,
        lambda words, _: list(words[::-1]),
    ),
    Family(
        "first_word",
        "word",
        ("What is the first word", "Give me the first of these words", "Which word leads"),
        _draw_words,
        lambda words, _: [words[0]],
    ),
    Family(
        "last_word",
        "word",
        ("What is the last word", "Give me the last of these words", "Which word ends this list"),
        _draw_words,
        lambda words, _: [words[-1]],
    ),
    Family(
        "unique_words",
        "words",
        ("Remove the duplicates", "Keep each word once", "Drop what is repeated"),
        _draw_words_with_repeat,
        lambda words, _: list(dict.fromkeys(words)),
    ),
    Family(
        "without_word",
        "words",
        ('Remove "{item}" from this list', 'Leave out "{item}"', 'List all but "{item}"'),
        _draw_words,
        lambda words, item: [word for word in words if word != item],
    ),
    Family(
        "word_count",
        "number",
        ("How many words are there", "Count these words", "Give me the number of words"),
        _draw_two_to_five_words,
        lambda words, _: [str(len(words))],
    ),
    Family(
        "sorted_letters",
        "letters",
        ("Sort these letters", "Put these letters in alphabetical order", "Order these letters from a to z"),
        _draw_letters,
        lambda letters, _: sorted(letters),
    ),
    Family(
        "reversed_letters",
        "letters",
        ("Reverse these letters", "Spell it backwards", "Turn these letters around"),
        _draw_letters,
        lambda letters, _: list(letters[::-1]),
    ),
    Family(
        "vowels",
        "letters",
        ("List the vowels", "Which of these are vowels", "Keep only the vowels"),
        _draw_letters_with_vowels,
        lambda letters, _: [letter for letter in letters if letter in VOWELS],
    ),
    Family(
        "letter_count",
        "number",
        ('How many times is "{item}" here', 'Count the letter "{item}"', 'How often is "{item}" in this'),
        _draw_repeated_letters,
        lambda letters, item: [str(letters.count(item))],
    ),
    Family(
        "largest_number",
        "number",
        ("Which number is the largest", "Give me the biggest number", "What is the greatest of these numbers"),
        _draw_digits,
        lambda numbers, _: [max(numbers, key=int)],
    ),
    Family(
        "parity",
        "word",
        ("Is this number even or odd", "Even or odd", "Tell me whether this is even or odd"),
        _draw_number,
        lambda numbers, _: ["odd" if int(numbers[0]) % 2 else "even"],
    ),
)

_FAMILY_OF = {phrasing: family for family in FAMILIES for phrasing in family.phrasings}
