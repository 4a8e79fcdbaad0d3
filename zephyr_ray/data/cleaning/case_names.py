"""Which words of a text that lost its capitals are names or acronyms: a logistic regression over a few numbers of each
word and its neighbours, and the text with their capitals restored.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zephyr_ray.data.cleaning import case_text
from zephyr_ray.data.cleaning.case_lexicon import CaseCounts, Cased, CaseLexicon, Pairs, pair_keys, word_keys

FEATURES = (
    "bias",
    "lexicon",  # log-odds of a capital
    "unknown",  # 1 if the lexicon lacks the word
    "rareness",  # towards 0 with the word's occurrences
    "pair_before",  # what the lexicon's counts of the pair with the word before add to the log-odds
    "pair_after",
    "nearby",  # what the rest of the dialogue adds to the log-odds; 0 for function words, which stand in any name
    "nearby_before",  # the same for its pairs
    "nearby_after",
    "quoted",  # 1 within a short quotation
    "quoted_first",
    "bracketed",  # 1 within brackets, as "[Your Name]"
    "in_short_line",  # 1 in a line of few words without a full stop, as a heading
    "after_colon",
    "after_head",  # 1 after the colon of a line's head, as "1. Safety: ..."
    "function_word",
    "function_word_quoted",
    "one_letter",
    "digits",
)
NEIGHBOURS = ("before", "after", "odds_before", "odds_after", "again")
"""From the round before: probabilities and log-odds of a capital of the words before and after, and how far the mean
log-odds of all occurrences of the word in the text are from its own."""

ROUNDS = 2
FIRST = np.array(
    [-1.06, 0.54, 1.06, 0.02, 0.44, 0.33, 0.38, 0.4, 0.3, 2.92, 0.38, 3.33, 1.56, 4.79, 1.23, 0.32, 0.31, 0.83, -1.41]
)
"""Weights of `FEATURES`, fitted to turns of UltraChat that were put through `str.capitalize`."""
THEN = np.array(
    [
        -0.66,
        0.51,
        0.97,
        0.17,
        0.4,
        0.3,
        0.38,
        0.31,
        0.23,
        2.33,
        0.91,
        2.92,
        1.21,
        4.67,
        1.11,
        0.18,
        0.2,
        0.85,
        -1.44,
        -0.3,
        1.14,
        0.21,
        -0.02,
        0.08,
    ]
)
"""Weights of `FEATURES` and `NEIGHBOURS`, in the rounds after the first."""

_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an the of in on at to for from by with and or but nor as is are was were be it its that this these those than
        into if not no so we you he she they my your his her their our all can will would do does did have has had which
        who what when where how why there then also
        """,
    )
)
_PRONOUNS = frozenset(["i", *(f"i{mark}{end}" for mark in "'’" for end in ("m", "ve", "ll", "d"))])
_POSSESSIVE = re.compile(r"(.+?)(['’]s?)$")
_QUOTATION = re.compile(r'["“]([^"“”\n]{2,80})["”]|(?<![\w\'])[\'‘]([^\'‘’\n]{2,60})[\'’](?!\w)')
_BRACKETS = re.compile(r"\[[^\[\]\n]{1,60}\]")
_ADJACENT = re.compile(r"[ ,;'’-]+")
_SENTENCE_END = re.compile(r"[^\W\d_][.?!](?:\s|$)|[,;]$")
_LINE = re.compile(r"[^\n]+")
_HEAD = re.compile(r"\s*(?:[-*•–]\s*|\w{1,2}[.)]\s*)?[^:\n]{1,60}:")
_HEAD_OF_ITEM = re.compile(r"\s*(?:[-*•]\s+|\d{1,2}[.)]\s+)[^:\n]{1,60}?\s*[-–]\s")
_INITIALS = re.compile(r"\(([a-z]{2,6})s?\)")
_SHORT = 8
"""Words of a heading or a quotation at most."""
_EXTREME = 1e-4


class Word(NamedTuple):
    start: int
    end: int
    key: str
    """In lower case, without the ending of a possessive if the lexicon lacks it with that."""
    cased: Cased | None
    is_start: bool
    """Whether a sentence or a line begins with it."""
    is_code: bool


class Nearby:
    """How the well-cased turns of the same dialogue write words."""

    def __init__(self, counts: CaseCounts):
        self.pairs = counts.pairs
        self._forms: dict[str, dict[str, int]] = {}
        for form, seen in counts.forms.items():
            self._forms.setdefault(form.lower(), {})[form] = seen

    def counts(self, key: str) -> tuple[int, int]:
        """Occurrences in lower case, and with a capital."""
        seen = self._forms.get(key, {})
        return seen.get(key, 0), sum(seen.values()) - seen.get(key, 0)

    def form(self, key: str) -> str | None:
        """The most frequent form with a capital, if there is one."""
        seen = {form: number for form, number in self._forms.get(key, {}).items() if form != key}
        return max(seen, key=lambda form: (seen[form], form), default=None)


def restore(text: str, lexicon: CaseLexicon, nearby: Nearby) -> str:
    """The text, which is in lower case, with the capitals of sentences, names, acronyms and "I". Code stays.

    Args:
        text: In lower case but for its first character.
        lexicon: Of the corpus.
        nearby: Of the well-cased turns of the same dialogue.
    """
    words = words_of(text, lexicon)
    chances = probabilities(features(text, words, lexicon, nearby), words)
    pieces, done = [], 0
    for word, chance in zip(words, chances, strict=True):
        written = text[word.start : word.end]
        pieces += [text[done : word.start], _written(written, word, chance, nearby)]
        done = word.end
    return _acronyms("".join([*pieces, text[done:]]))


def words_of(text: str, lexicon: CaseLexicon) -> list[Word]:
    """The words of a text, in order."""
    spans = case_text.code_spans(text)
    words: list[Word] = []
    end, span = 0, 0
    for match in case_text.WORD.finditer(text):
        while span < len(spans) and spans[span][1] <= match.start():
            span += 1
        is_code = span < len(spans) and spans[span][0] <= match.start()
        gap = text[max(0, end - 8) : match.start()]
        lies_between = text[end : match.start()]
        numbered = lies_between[:1] in (".", ")") and lies_between[1:2].isspace() and _is_number(text, words, end)
        may_start = len(lies_between) > 1 or lies_between == "\n"
        is_start = not words or numbered or (may_start and case_text.STARTS.search(gap) is not None)
        key = match.group().lower()
        cased = lexicon.words.get(key)
        possessive = _POSSESSIVE.match(key) if cased is None or cased.lower + cased.capital < 5 else None
        if possessive:
            key = possessive.group(1)
            cased = lexicon.words.get(key)
        words.append(Word(match.start(), match.end(), key, cased, is_start, is_code))
        end = match.end()
    return words


def features(text: str, words: Sequence[Word], lexicon: CaseLexicon, nearby: Nearby) -> np.ndarray:
    """(words, `FEATURES`)"""
    chances = np.array([_chance(word, lexicon) for word in words])
    seen = np.array([0 if word.cased is None else word.cased.lower + word.cased.capital for word in words])
    near = np.array([nearby.counts(word.key) for word in words])
    is_function = np.array([word.key in _FUNCTION_WORDS for word in words])
    starts = np.array([word.start for word in words])
    quoted, bracketed, short, heads, dashes = _marks(text)
    after_colon = np.array(
        [not word.is_start and (dashes[word.start] or _after_colon(text, word.start)) for word in words]
    )
    columns = {
        "bias": np.ones(len(words)),
        "lexicon": _odds(chances),
        "unknown": seen == 0,
        "rareness": (seen > 0) / (1 + np.log1p(seen)),
        **_of_pairs("pair", lexicon.pairs, 2.0, text, words, chances),
        "nearby": np.where(is_function, 0, _added(near, 0.5, chances)),
        **_of_pairs("nearby", nearby.pairs, 0.5, text, words, chances),
        "quoted": quoted[starts],
        "quoted_first": quoted[starts] & ~quoted[starts - 1],
        "bracketed": bracketed[starts],
        "in_short_line": short[starts],
        "after_colon": after_colon,
        "after_head": after_colon & (heads[starts - 2] | heads[starts - 3]),
        "function_word": is_function,
        "function_word_quoted": is_function & quoted[starts],
        "one_letter": np.array([len(word.key) == 1 for word in words]),
        "digits": np.array([any(map(str.isdigit, word.key)) for word in words]),
    }
    return np.stack([columns[name] for name in FEATURES], axis=1).astype(np.float64)


def with_neighbours(rows: np.ndarray, words: Sequence[Word], chances: np.ndarray) -> np.ndarray:
    """(words, `FEATURES` + `NEIGHBOURS`), given the chances of a round before. Starts of sentences say nothing."""
    is_start = np.array([word.is_start for word in words])
    chances = np.where(is_start, 0.0, chances)
    odds = np.where(is_start, 0.0, np.clip(np.log(chances + _EXTREME) - np.log(1 - chances + _EXTREME), -5, 5))
    added = np.zeros((len(words), len(NEIGHBOURS)))
    added[1:, 0], added[:-1, 1], added[1:, 2], added[:-1, 3] = chances[:-1], chances[1:], odds[:-1], odds[1:]
    _, same = np.unique([word.key for word in words], return_inverse=True)
    counted = np.bincount(same, ~is_start)
    mean = np.bincount(same, odds) / np.maximum(counted, 1)
    added[:, 4] = np.where(is_start, 0.0, mean[same] - odds)
    return np.hstack([rows, added])


def probabilities(rows: np.ndarray, words: Sequence[Word]) -> np.ndarray:
    """(words,) probabilities that a word has a capital where no sentence starts."""
    if not words:
        return np.zeros(0)
    chances = _sigmoid(rows @ FIRST)
    for _ in range(ROUNDS):
        chances = _sigmoid(with_neighbours(rows, words, chances) @ THEN)
    return chances


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))


def _odds(chances: np.ndarray) -> np.ndarray:
    chances = np.clip(chances, _EXTREME, 1 - _EXTREME)
    return np.log(chances / (1 - chances))


def _added(counts: np.ndarray, weight: float, chances: np.ndarray) -> np.ndarray:
    """What (words, 2) counts in lower case and with a capital add to the log-odds of `chances`, which weigh as much as
    `weight` occurrences."""
    return _odds((counts[:, 1] + weight * chances) / (counts.sum(1) + weight)) - _odds(chances)


def _of_pairs(
    name: str, pairs: Pairs, weight: float, text: str, words: Sequence[Word], chances: np.ndarray
) -> dict[str, np.ndarray]:
    """What the pairs with the words before and after add to each word's log-odds."""
    before, after = np.zeros((2, len(words), 2))
    hashes = word_keys([word.key for word in words])
    adjacent = [_ADJACENT.fullmatch(text, a.end, b.start) is not None for a, b in itertools.pairwise(words)]
    counts = pairs.find(pair_keys(hashes[:-1], hashes[1:])) * np.array(adjacent, bool)[:, None]
    after[:-1], before[1:] = counts[:, :2], counts[:, 2:]
    return {f"{name}_before": _added(before, weight, chances), f"{name}_after": _added(after, weight, chances)}


def _after_colon(text: str, place: int) -> bool:
    return text[max(0, place - 3) : place].rstrip(" \"“*('‘").endswith(":")


def _is_number(text: str, words: Sequence[Word], end: int) -> bool:
    """Whether the last word is a number that ends a sentence (in 2010. The), or an item's (1. The, 1) The)."""
    if not words or not text[words[-1].start : end].isdigit():
        return False
    before = text[: words[-1].start].rstrip(" *")
    return text[end] == "." or not before or before.endswith("\n")


def _chance(word: Word, lexicon: CaseLexicon) -> float:
    """The share of capitals among a word's occurrences, drawn towards what its ending says by one occurrence."""
    unknown = lexicon.unknown(word.key)
    if word.cased is None:
        return unknown
    return (word.cased.capital + unknown) / (word.cased.capital + word.cased.lower + 1)


def _marks(text: str) -> np.ndarray:
    """(5, characters) whether each is in a short quotation, in brackets, in a short line, in the head of a line, and
    whether it comes after the dash that ends the head of an item."""
    quoted, bracketed, short, heads, dashes = marks = np.zeros((5, len(text) + 1), bool)
    for match in _QUOTATION.finditer(text):
        if len(match.group().split()) <= _SHORT:
            quoted[slice(*match.span(1 if match.group(1) else 2))] = True
    for match in _BRACKETS.finditer(text):
        bracketed[slice(*match.span())] = True
    for match in _LINE.finditer(text):
        line = match.group().rstrip()
        short[slice(*match.span())] = len(line.split()) <= _SHORT and not _SENTENCE_END.search(line)
        head = _HEAD.match(line)
        if head and len(head.group().split()) <= _SHORT:
            heads[match.start() : match.start() + head.end()] = True
        if item := _HEAD_OF_ITEM.match(line):
            dashes[match.start() + item.end()] = True
    return marks


def _written(written: str, word: Word, chance: float, nearby: Nearby) -> str:
    """The word as it has to be written."""
    if word.is_code:
        return written
    form = written
    if word.key in _PRONOUNS:
        form = f"I{written[1:]}"
    elif chance > 0.5:
        form = (nearby.form(word.key) or _usual_form(word)) + written[len(word.key) :]
    if word.is_start and form.islower():
        form = _capitalized(form)
    return form if len(form) == len(written) and form.lower() == written.lower() else written


def _usual_form(word: Word) -> str:
    """As the lexicon writes the word with a capital. Capitals are emphasis if it is usually in lower case (MORE)."""
    cased = word.cased
    if cased is None or cased.form == word.key:
        return _capitalized(word.key)
    if cased.form.isupper() and cased.lower > cased.capital and len(word.key) > 2:
        return _capitalized(word.key)
    return cased.form


def _capitalized(word: str) -> str:
    return word[:1].upper() + word[1:]


def _acronyms(text: str) -> str:
    """The text with acronyms in brackets in capitals where the words before begin with their letters:
    King James Version (kjv)."""

    def _upper(match: re.Match[str]) -> str:
        letters = match.group(1)
        before = case_text.WORD.findall(text, max(0, match.start() - 80), match.start())
        initials = [word[0].lower() for word in before]
        has_them = "".join(initials[-len(letters) :]) == letters
        without = "".join(word[0].lower() for word in before if word.lower() not in _FUNCTION_WORDS)
        return (
            match.group().replace(letters, letters.upper(), 1)
            if has_them or without.endswith(letters)
            else match.group()
        )

    return _INITIALS.sub(_upper, text)
