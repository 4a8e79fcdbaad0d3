"""Drop rows with a message that contains a benchmark's prompt, word by word or nearly so.

A model that was trained on a benchmark's questions cannot be measured with it. UltraFeedback's prompts, for example,
contain TruthfulQA's (see the data card of its cleaned release). Messages are compared by their folded words
(`folded_words`), however these are divided ("water-melon", "water melon"). A message of the user or the system is
contaminated if it

    is a benchmark prompt of fewer than `SHORTEST` words, as a whole, or
    contains a longer one, or a run of `words` words of one, with at most one edit, from `LONG` words on two.

An edit is a word that was inserted, changed or left out. With another word a question is often another question ("What
is the best ...?"): of a prompt that is less than half of its message no word may be changed below `LONG` words, and one
below `LONGER`. And the edits leave at least half of the words that tell what a prompt is about: "Which of the following
is not a body of water" shares eight words of ten with a question on bacteria. Answers share a few words with benchmarks
by chance: in a message of the assistant only unchanged runs of `LONG` words or more count.

Pieces of three or four words lead from a message to the prompts that it is compared with: an inserted and a changed
word leave one whole. A message costs a look-up per word, however many benchmarks there are.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zephyr_ray.data.cleaning.benchmark_files import BenchmarkPrompt, read_prompts
from zephyr_ray.data.cleaning.folded_words import words_of
from zephyr_ray.data.cleaning.near_runs import Words, fewest_edits
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.data.io.rows import ToRow
from zephyr_ray.schemas import Dropped, Reason

SHORTEST = 5
"""Words; shorter prompts, such as "what is your name", occur in any data and prove nothing."""
LONG = 8
"""Words from which a prompt may have two edits, and is looked for in answers."""
LONGER = 10
"""Words from which both may be changes in any message."""
_LETTERS = 16  # of the shortest run that may have an edit; in a script without spaces few words are few letters
_FOUR_FROM = 11  # words of a run of which two edits leave four in a row
_COMMON = 50  # places of a piece such as "which of the following", which tells little of a message
_SPLITS = 1  # words more or fewer that another division makes of a run, in any case
_ASIDE = 2  # words of a message beside a prompt of which the only telling word may be another
_FREQUENT = 200
"""A word that more than one of so many prompts have, and more than `_ANY` of them, tells little."""
_ANY = 8
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an the of in on at to for from by with about into than as and or but nor if not no so is are was were be been
        being do does did has have had can could will would shall should may might must i you he she it we they me him
        her us them my your his its our their this that these those there here who whom whose which what when where why
        how all any some most more many much one two following best true false
        """,
    )
)


@dataclass(frozen=True)
class Benchmarks:
    """Benchmark prompts and the length of a run of words that must not be shared with them. Small and picklable."""

    prompts: tuple[BenchmarkPrompt, ...]
    words: int

    def index(self) -> BenchmarkIndex:
        """The index that finds them in messages, built once per process; call it once per batch of rows."""
        return _cached_index(self)


def read_benchmarks(files: Sequence[str], words: int, field: str) -> Benchmarks | None:
    """The prompts of benchmark files (`benchmark_files`), or None if no file is named. For the driver.

    Args:
        files: Paths or URIs.
        words: Length of a run of words that must not be shared.
        field: The recipe's field that names the files.

    Raises:
        UserError: A file is missing, cannot be read, or holds something else.
    """
    return Benchmarks(read_prompts(files, field), words) if files else None


def checked(to_row: ToRow, benchmarks: Benchmarks | None) -> ToRow:
    """`to_row`, but a row whose `messages` are contaminated is dropped. Call it once per batch of rows."""
    if benchmarks is None:
        return to_row
    index = benchmarks.index()

    def to_checked_row(raw: Mapping[str, Any]) -> dict[str, Any]:
        row = to_row(raw)
        index.check(row["messages"])
        return row

    return to_checked_row


class _Wanted(NamedTuple):
    """A benchmark prompt as it is looked for."""

    words: Words
    distinct: frozenset[str]
    run: int
    """Words that have to be found in a row."""
    edits: int
    """The most edits in them."""
    telling: frozenset[str]
    """Those that tell what it is about. Empty where a part of the prompt is enough."""


Piece = tuple[str, ...]
"""Three or four words that follow one another, or five with an empty one in the middle that may be any word."""


class _Place(NamedTuple):
    """Where a piece is in a benchmark prompt, and what a message that contains the prompt has around it."""

    prompt: int
    at: int
    """Where the piece begins in the prompt."""
    before: int
    """Words before the piece that may belong to the prompt."""
    after: int
    """Words from the beginning of the piece on that may."""
    distinct: int
    """Different words of the prompt among these, at least."""


class _Found(NamedTuple):
    """A benchmark prompt in a message; the least of several is the best."""

    edits: int
    start: int
    prompt: int


class BenchmarkIndex:
    """Benchmark prompts by pieces of their words."""

    def __init__(self, benchmarks: Benchmarks):
        self.prompts = benchmarks.prompts
        self._wanted: list[_Wanted] = []
        self._whole: dict[str, int] = {}
        self._places: dict[Piece, list[_Place]] = {}
        prompts = [words_of(prompt.text) for prompt in benchmarks.prompts]
        frequent = _frequent_words(prompts)
        for number, words in enumerate(prompts):
            self._add(number, words, benchmarks.words, frequent)
        _drop_common(self._places)
        self._starts = {piece[:3] for piece in self._places if len(piece) < SHORTEST}

    def check(self, messages: Sequence[Message]) -> None:
        """Refuses contaminated messages.

        Raises:
            Dropped: They are contaminated; the detail names the benchmark's file and line.
        """
        found = self.find(messages)
        if found is not None:
            raise Dropped(Reason.CONTAMINATED, f"{found.file}:{found.line}: {found.text}")

    def find(self, messages: Sequence[Message]) -> BenchmarkPrompt | None:
        """Of the first contaminated message the benchmark prompt that it has with the fewest edits, or None."""
        for message in messages:
            number = self._find(words_of(message["content"]), is_answer=message["role"] == "assistant")
            if number is not None:
                return self.prompts[number]
        return None

    def _add(self, number: int, words: list[str], run: int, frequent: frozenset[str]) -> None:
        telling = frozenset(words) - frequent if len(words) <= run else frozenset()
        wanted = _Wanted(words, frozenset(words), min(len(words), run), _edits(words, run), telling)
        self._wanted.append(wanted)
        if len(words) < min(SHORTEST, run):
            if words:
                self._whole.setdefault("".join(words), number)
            return
        room = wanted.edits + _SPLITS
        distinct = min(len(wanted.distinct), wanted.run) - room
        for at, piece in _pieces(words, wanted.run):
            after = min(len(words) - at, len(piece) + wanted.run)
            self._places.setdefault(piece, []).append(_Place(number, at, min(at, run) + room, after + room, distinct))

    def _find(self, words: list[str], *, is_answer: bool) -> int | None:
        is_short = len(words) <= 2 * SHORTEST
        if is_short and not is_answer:
            whole = self._whole.get("".join(words))
            if whole is not None:
                return whole
        found: list[_Found] = []
        for start, piece in self._pieces_in(words, is_short=is_short):
            for place in self._places.get(piece, ()):
                fewest = self._compared(words, start, piece, place, is_answer=is_answer)
                if fewest is not None:
                    found.append(_Found(fewest, start, place.prompt))
        return min(found).prompt if found else None

    def _pieces_in(self, words: list[str], *, is_short: bool) -> list[tuple[int, Piece]]:
        """Pieces of a message that may be a prompt's, and where they begin: few, and found without a Python loop."""
        triples = zip(words, words[1:], words[2:], strict=False)
        starts = itertools.compress(itertools.count(), map(self._starts.__contains__, triples))
        pieces = [(start, tuple(words[start : start + size])) for start in starts for size in (3, 4)]
        if is_short:
            pieces += [(start, _gapped(words[start : start + SHORTEST])) for start in range(len(words) - SHORTEST + 1)]
        return pieces

    def _compared(self, words: Words, start: int, piece: Piece, place: _Place, *, is_answer: bool) -> int | None:
        """The edits with which a message has a prompt around a piece, or None."""
        wanted = self._wanted[place.prompt]
        first = max(0, start - place.before)
        around = words[first : start + place.after]
        if len(wanted.distinct.intersection(around)) < place.distinct or (is_answer and wanted.run < LONG):
            return None
        edits, changes = _allowed(wanted, len(words), is_answer)
        size = len(piece) if len(piece) < SHORTEST else 2
        fewest = fewest_edits(
            wanted.words, place.at, around, start - first, size, run=wanted.run, edits=edits, changes=changes
        )
        return None if fewest and _is_about_something_else(wanted, around, len(words)) else fewest


@functools.lru_cache(maxsize=4)
def _cached_index(benchmarks: Benchmarks) -> BenchmarkIndex:
    return BenchmarkIndex(benchmarks)


def _edits(words: Words, run: int) -> int:
    """The most edits in a run of so many words of a prompt, or in the whole prompt."""
    run = min(len(words), run)
    if run < SHORTEST or sum(map(len, words)) < _LETTERS:
        return 0
    return 1 if run < LONG else 2


def _allowed(wanted: _Wanted, words: int, is_answer: bool) -> tuple[int, int]:
    """The most edits in a message of so many words, and the most changes among them."""
    if is_answer:
        return 0, 0
    if 2 * len(wanted.words) >= words or wanted.run >= LONGER:
        return wanted.edits, wanted.edits
    return wanted.edits, int(wanted.run >= LONG)


def _is_about_something_else(wanted: _Wanted, around: Words, words: int) -> bool:
    """Whether a message of so many words lacks what tells of a prompt, where it has the rest of it."""
    lost = len(wanted.telling.difference(around))
    if 2 * lost <= len(wanted.telling):
        return False
    return lost > 1 or words > len(wanted.words) + _ASIDE


def _frequent_words(prompts: Sequence[Words]) -> frozenset[str]:
    """Words that tell little of a prompt: function words, and those that many of the prompts have."""
    seen = Counter(word for words in prompts for word in set(words))
    most = max(_ANY, len(prompts) // _FREQUENT)
    return _FUNCTION_WORDS.union(word for word, number in seen.items() if number > most)


def _pieces(words: list[str], run: int) -> Iterator[tuple[int, Piece]]:
    """The pieces by which a prompt is found, and where they begin."""
    size = min(run, 4 if run >= _FOUR_FROM else 3)
    for at in range(len(words) - size + 1):
        yield at, tuple(words[at : at + size])
    if run == len(words) == SHORTEST:  # with another third word no three are left in a row
        yield 0, _gapped(words)


def _gapped(words: list[str]) -> Piece:
    return (*words[:2], "", *words[3:SHORTEST])


def _drop_common(places: dict[Piece, list[_Place]]) -> None:
    """Takes away pieces that many prompts have, but for prompts without any other."""
    is_left = {place.prompt for some in places.values() if len(some) <= _COMMON for place in some}
    for piece, some in list(places.items()):
        if len(some) > _COMMON:
            places[piece] = [place for place in some if place.prompt not in is_left]
        if not places[piece]:
            del places[piece]
