"""How words are cased: counted over well-cased text, tallies of which add up, and as a lexicon made of them.

Only words in the middle of a sentence say how they are cased, and only turns that are well cased are read: none in
lower case, in capitals, or with sentences that start in lower case; of those no headings, titles and code.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from zephyr_ray.data.cleaning import case_text
from zephyr_ray.data.cleaning.code_spans import CODE
from zephyr_ray.data.formats.messages import Message

FORMS, PAIRS = 1 << 20, 1 << 21
"""How many forms and pairs of words a tally holds at most (about 200 MB); beyond, it forgets the rarest."""
LEXICON_WORDS, LEXICON_PAIRS = 200_000, 1 << 19
"""How many words and pairs a lexicon holds at most (about 60 MB): the most frequent."""
_KNOWN = 20
"""As how many occurrences a name of the project's own list counts."""
_RARE = 2
"""Words seen so often at most say how unknown words with the same ending are cased."""
_PIECE = re.compile(rf"{case_text.WORD.pattern}|[^\s,;'’-]|\n")
"""A word, or what breaks a sentence or sets a word apart. Commas and hyphens do not."""
_STOPS = frozenset(".?!:\n")
_CAPITAL = re.compile(r"\b[A-Z]")


class Cased(NamedTuple):
    """How a word is cased in the middle of sentences."""

    lower: int
    """Occurrences in lower case."""
    capital: int
    """Occurrences with a capital."""
    form: str
    """The most frequent form with a capital (Paris, NASA, iPhone), or the word itself where there is none."""


@dataclass
class Pairs:
    """How the words of adjacent pairs are cased."""

    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    """(pairs,) hashes of pairs in lower case (`pair_keys`), ascending."""
    counts: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.uint32))
    """(pairs, 4) occurrences of the first word in lower case and with a capital, and the same of the second."""

    def add(self, keys: np.ndarray, counts: np.ndarray) -> None:
        """Adds counts of keys that may repeat, in any order."""
        keys, counts = np.concatenate([self.keys, keys]), np.concatenate([self.counts, counts])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
        self.keys = keys[first]
        self.counts = np.add.reduceat(counts[order], first, axis=0, dtype=np.uint32) if len(first) else counts

    def keep_most_frequent(self, size: int) -> None:
        """Leaves at most `size` pairs: all that occur more often than some number."""
        if len(self.keys) > size:
            seen = self.counts.sum(1)
            kept = seen > np.partition(seen, -size - 1)[-size - 1]
            self.keys, self.counts = self.keys[kept], self.counts[kept]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """(keys, 4) counts, 0 for unknown pairs."""
        if not len(self.keys):
            return np.zeros((len(keys), 4), np.uint32)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((self.keys[places] == keys)[:, None], self.counts[places], 0)


@dataclass
class CaseCounts:
    """A tally of how words are cased in the middle of sentences. Tallies of blocks add up to the same in any order,
    unless something rare had to be forgotten (`FORMS`, `PAIRS`)."""

    forms: Counter[str] = field(default_factory=Counter)
    """Occurrences of each word as it is written."""
    pairs: Pairs = field(default_factory=Pairs)

    def add(self, other: CaseCounts) -> None:
        self.forms.update(other.forms)
        _forget_rarest(self.forms, FORMS)
        self.pairs.add(other.pairs.keys, other.pairs.counts)
        self.pairs.keep_most_frequent(PAIRS)


@dataclass(frozen=True)
class CaseLexicon:
    """How words are cased. Picklable."""

    words: Mapping[str, Cased]
    """By the word in lower case."""
    pairs: Pairs
    endings: Mapping[str, float]
    """Share of capitals among rare words, by their last three letters."""
    capital_share: float
    """Share of capitals among all rare words."""

    def unknown(self, word: str) -> float:
        """The probability that a word with this ending, itself unknown, has a capital."""
        return self.endings.get(word[-3:], self.capital_share)


def pair_keys(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Hashes of pairs of words, of the hashes of both (`word_keys`)."""
    return first * np.uint64(0x9E3779B97F4A7C15) + second


def word_keys(words: Sequence[str]) -> np.ndarray:
    """(words,) hashes of words in lower case, uint64."""
    digests = b"".join(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest() for word in words)
    return np.frombuffer(digests, np.uint64)


def count(dialogues: Iterable[Sequence[Message]]) -> CaseCounts:
    """Counts how words are cased in well-cased turns of dialogues (of any role)."""
    texts = (message["content"] for messages in dialogues for message in messages)
    return count_texts([text for text in texts if is_well_cased(text)])


def count_texts(texts: Sequence[str], *, everywhere: bool = False) -> CaseCounts:
    """Counts how words are cased in texts that are known to be well cased.

    Args:
        texts: The texts.
        everywhere: Count in titles too, after quotation marks and brackets, and words of mixed case anywhere.
    """
    pieces = _PIECE.findall(CODE.sub("\n", "\n".join(texts)))
    if not pieces:
        return CaseCounts()
    encoded = pa.array(pieces, pa.string()).dictionary_encode()
    codes, written = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    lowered = [word.lower() for word in written]
    is_word = np.array(
        [word[0].isalnum() and len(word) == len(low) for word, low in zip(written, lowered, strict=True)]
    )
    is_capital = np.array([word != low for word, low in zip(written, lowered, strict=True)])
    follows = np.append(False, is_word[codes[:-1]])
    if everywhere:
        is_mixed = np.array([word[1:] != low[1:] for word, low in zip(written, lowered, strict=True)])
        is_stop = np.array([word in _STOPS for word in written])
        counted = is_word[codes] & (np.append(False, ~is_stop[codes[:-1]]) | is_mixed[codes])
    else:
        line = np.cumsum(np.array([word == "\n" for word in written])[codes])
        counted = is_word[codes] & follows & ~_in_titles(line, is_word[codes], is_capital[codes])
    forms = np.bincount(codes[counted], minlength=len(written))
    tally = CaseCounts(Counter({written[code]: int(forms[code]) for code in np.flatnonzero(forms)}))
    second = np.flatnonzero(counted & follows)
    first = second - 1
    hashes = word_keys(lowered)
    counts = np.zeros((len(second), 4), np.uint32)
    counts[np.arange(len(second)), is_capital[codes[first]].astype(int)] = counted[first]
    counts[np.arange(len(second)), 2 + is_capital[codes[second]].astype(int)] = 1
    tally.pairs.add(pair_keys(hashes[codes[first]], hashes[codes[second]]), counts)
    return tally


def make_lexicon(counts: CaseCounts) -> CaseLexicon:
    """The lexicon of a corpus, with the project's own list (`case_lexicon.txt`).

    It is a function of the corpus as a multiset, as far as its tally has forgotten nothing.
    """
    forms: dict[str, dict[str, int]] = {}
    for form, seen in counts.forms.items():
        forms.setdefault(form.lower(), {})[form] = seen
    endings, share = _endings(forms)
    pairs = Pairs(counts.pairs.keys, counts.pairs.counts)
    for name in _known_names():
        words = name.split(" ")
        if len(words) == 1:
            of_word = forms.setdefault(name.lower(), {})
            of_word[name] = of_word.get(name, 0) + _KNOWN
    pairs.add(*_known_pairs())
    pairs.keep_most_frequent(LEXICON_PAIRS)
    words_of = {word: _cased(word, seen) for word, seen in forms.items()}
    frequent = sorted(words_of, key=lambda word: (-words_of[word].lower - words_of[word].capital, word))
    return CaseLexicon({word: words_of[word] for word in frequent[:LEXICON_WORDS]}, pairs, endings, share)


def is_well_cased(text: str) -> bool:
    """Whether the text is cased as usual, so that capitals in it mean something."""
    if not text or text[1:].islower() or not text[0].isascii() or text[0].islower():
        return False
    capitals = len(_CAPITAL.findall(text))
    return capitals <= 0.3 * len(text.split()) + 5 and next(case_text.single_starts(text), None) is None


def _in_titles(lines: np.ndarray, is_word: np.ndarray, is_capital: np.ndarray) -> np.ndarray:
    """Whether each piece is in a line half of whose words have capitals: a heading, a title, a list of names."""
    words = np.bincount(lines, is_word)
    capitals = np.bincount(lines, is_word & is_capital)
    return (capitals > 0.5 * words)[lines]


def _forget_rarest(counter: Counter[str], size: int) -> None:
    """Leaves at most `size` entries: all that occur more often than some number."""
    if len(counter) > size:
        numbers = np.sort(np.fromiter(counter.values(), np.int64, len(counter)))
        least = numbers[-size - 1]
        for key in [key for key, number in counter.items() if number <= least]:
            del counter[key]


def _cased(word: str, seen: Mapping[str, int]) -> Cased:
    lower = seen.get(word, 0)
    capitals = {form: number for form, number in seen.items() if form != word}
    form = max(capitals, key=lambda form: (capitals[form], form), default=word)
    return Cased(lower, sum(capitals.values()), form)


def _endings(forms: Mapping[str, Mapping[str, int]]) -> tuple[dict[str, float], float]:
    lower: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    for word, seen in forms.items():
        if len(seen) == 1 and sum(seen.values()) <= _RARE and word.isalpha():
            (lower if word in seen else capital)[word[-3:]] += 1
    share = (capital.total() + 1) / (capital.total() + lower.total() + 10)  # few, where there is little to go by
    both = lower | capital
    return {end: (capital[end] + 4 * share) / (capital[end] + lower[end] + 4) for end in sorted(both)}, share


@functools.cache
def _known_names() -> tuple[str, ...]:
    text = importlib.resources.files("zephyr_ray.data.cleaning").joinpath("case_lexicon.txt").read_text("utf-8")
    lines = (line.strip() for line in text.splitlines() if not line.startswith("#"))
    return tuple(name.strip() for line in lines for name in line.split(",") if name.strip())


def _known_pairs() -> tuple[np.ndarray, np.ndarray]:
    """Keys and counts of the pairs in the longer names of the project's own list."""
    counts: list[tuple[str, str, bool, bool]] = []
    for name in _known_names():
        words = name.split(" ")
        counts += [(a.lower(), b.lower(), a != a.lower(), b != b.lower()) for a, b in itertools.pairwise(words)]
    keys = pair_keys(word_keys([a for a, *_ in counts]), word_keys([b for _, b, *_ in counts]))
    capitals = np.array([(first, second) for *_, first, second in counts])
    added = np.stack([~capitals[:, 0], capitals[:, 0], ~capitals[:, 1], capitals[:, 1]], axis=1)
    return keys, (_KNOWN * added).astype(np.uint32)
