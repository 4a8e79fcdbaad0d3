"""Reads the text of an instruction -> the items and the form of its one right answer. The tasks of the embedded world.

An instruction asks for something, may ask for a form, and ends with a list:

    Sort these words, one per line: tree, moon, bird

A list is answered with commas, as it is written in the prompt, unless another form is asked for. Everything that the
answer needs is in the text.
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
"""Request of form -> what stands between two items of the answer."""
CAPITALS = (", in capitals", ", in upper case")
"""Requests of form that ask for upper case."""


@dataclass(frozen=True)
class Family:
    """One kind of task: how it is asked for, how the items of its list are drawn, and the items of the right answer.

    A phrasing may name one item of the list in quotes (`{item}`); `answer` gets it as its second argument, else "".
    """

    name: str
    kind: Kind
    phrasings: tuple[str, ...]
    draw: Callable[[Random], list[str]]
    answer: Callable[[Sequence[str], str], list[str]]


@dataclass(frozen=True)
class Task:
    """What an instruction asks for: the items of the answer in order and in lower case, and their form."""

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
    """What an instruction asks for.

    Raises:
        ValueError: The text is no instruction of this world.
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
    """An instruction: each family is as likely as the others, and so is each of its phrasings."""
    family = rng.choice(FAMILIES)
    items = family.draw(rng)
    asked = rng.choice(family.phrasings).format(item=rng.choice(items))
    request = rng.choice(requests(family.kind)) if rng.random() < _ASKS_FOR_FORM else ""
    return f"{asked}{request}: {COMMAS.join(items)}"


def requests(kind: Kind) -> tuple[str, ...]:
    """The requests of form that suit a kind of answer; the empty one always does."""
    if kind == "number":
        return ("",)
    return ("", *CAPITALS) if kind == "word" else ("", *SEPARATORS, *CAPITALS)


_ASKS_FOR_FORM = 0.6


def _words(rng: Random) -> list[str]:
    return rng.sample(WORDS, 3)


def _words_one_twice(rng: Random) -> list[str]:
    words = rng.sample(WORDS, 2)
    words.insert(rng.randint(0, 2), rng.choice(words))
    return words


def _some_words(rng: Random) -> list[str]:
    return rng.sample(WORDS, rng.randint(2, 5))


def _letters(rng: Random) -> list[str]:
    return rng.sample(LETTERS, 3)


def _letters_with_vowels(rng: Random) -> list[str]:
    vowels = rng.randint(1, 2)
    letters = rng.sample(VOWELS, vowels) + rng.sample(sorted(set(LETTERS) - set(VOWELS)), 3 - vowels)
    rng.shuffle(letters)
    return letters


def _few_letters(rng: Random) -> list[str]:
    return rng.choices(rng.sample(LETTERS, 2), k=3)


def _digits(rng: Random) -> list[str]:
    return rng.sample("123456789", 3)


def _number(rng: Random) -> list[str]:
    return [str(rng.randint(10, 999))]


FAMILIES = (
    Family(
        "sorted_words",
        "words",
        ("Sort these words", "Put these words in alphabetical order", "Order these words from a to z"),
        _words,
        lambda words, _: sorted(words),
    ),
    Family(
        "reversed_words",
        "words",
        ("Reverse this list", "List these words backwards", "Start from the end"),
        _words,
        lambda words, _: list(words[::-1]),
    ),
    Family(
        "first_word",
        "word",
        ("What is the first word", "Give me the first of these words", "Which word leads"),
        _words,
        lambda words, _: [words[0]],
    ),
    Family(
        "last_word",
        "word",
        ("What is the last word", "Give me the last of these words", "Which word ends this list"),
        _words,
        lambda words, _: [words[-1]],
    ),
    Family(
        "unique_words",
        "words",
        ("Remove the duplicates", "Keep each word once", "Drop what is repeated"),
        _words_one_twice,
        lambda words, _: list(dict.fromkeys(words)),
    ),
    Family(
        "without_word",
        "words",
        ('Remove "{item}" from this list', 'Leave out "{item}"', 'List all but "{item}"'),
        _words,
        lambda words, item: [word for word in words if word != item],
    ),
    Family(
        "word_count",
        "number",
        ("How many words are there", "Count these words", "Give me the number of words"),
        _some_words,
        lambda words, _: [str(len(words))],
    ),
    Family(
        "sorted_letters",
        "letters",
        ("Sort these letters", "Put these letters in alphabetical order", "Order these letters from a to z"),
        _letters,
        lambda letters, _: sorted(letters),
    ),
    Family(
        "reversed_letters",
        "letters",
        ("Reverse these letters", "Spell it backwards", "Turn these letters around"),
        _letters,
        lambda letters, _: list(letters[::-1]),
    ),
    Family(
        "vowels",
        "letters",
        ("List the vowels", "Which of these are vowels", "Keep only the vowels"),
        _letters_with_vowels,
        lambda letters, _: [letter for letter in letters if letter in VOWELS],
    ),
    Family(
        "letter_count",
        "number",
        ('How many times is "{item}" here', 'Count the letter "{item}"', 'How often is "{item}" in this'),
        _few_letters,
        lambda letters, item: [str(letters.count(item))],
    ),
    Family(
        "largest_number",
        "number",
        ("Which number is the largest", "Give me the biggest number", "What is the greatest of these numbers"),
        _digits,
        lambda numbers, _: [max(numbers, key=int)],
    ),
    Family(
        "parity",
        "word",
        ("Is this number even or odd", "Even or odd", "Tell me whether this is even or odd"),
        _number,
        lambda numbers, _: ["odd" if int(numbers[0]) % 2 else "even"],
    ),
)

_FAMILY_OF = {phrasing: family for family in FAMILIES for phrasing in family.phrasings}
