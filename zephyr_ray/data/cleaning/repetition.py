"""Find loops: a line, a sentence or a few words over and over, as base models and cut generations write them.

Songs, tables, code and columns of numbers repeat themselves too. A loop has words, outside code and tables, and says
them many times one after the other, or says little else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from zephyr_ray.data.cleaning.code_spans import prose_of

_PROBE = 24
"""Characters of a probe: a text in which no probe of this length occurs `_OFTEN` times is in no loop."""
_OFTEN = 4
_APART = 160
_PROBES = 64

LONGEST = 120
"""Words of the longest unit that is looked for."""
_GRAM = 12
"""Words of the runs that are counted where no unit follows itself."""
_SHARE = 0.8
_WORD = re.compile(r"\w+|[^\w\s]")
_LIST_MARK = re.compile(r"^[ \t]*(?:[-*+\u2022]|\(?\d+[.):])[ \t]+", re.MULTILINE)
_TABLE_ROW = re.compile(r"^.*\|.*\|.*$", re.MULTILINE)
_ONE_LETTER = re.compile(r"([^\W\d_])\1{99}")
_ASKED_FOR = re.compile(
    r"\b(?:repeat\w*|repetit\w+|(?:\d+|ten|twenty|fifty|hundred|thousand|many|several|multiple) times|times in a row"
    r"|over and over|songs?|lyrics?|chorus|chants?|mantras?|rap|verses?|poems?|rhymes?|refrain|loops?|ascii)\b",
    re.IGNORECASE,
)


def asks_for_repetition(request: str) -> bool:
    """Whether a user asks for a text in which repetition is right: a song, a line to be written a hundred times."""
    return _ASKED_FOR.search(request) is not None


def repeated_unit(answer: str) -> str | None:
    """The words that an answer repeats over and over; None if it does not.

    Args:
        answer: An assistant's turn.
    """
    if not _may_repeat(answer):
        return None
    text = _TABLE_ROW.sub("", _LIST_MARK.sub("", prose_of(answer)))
    if letters := _ONE_LETTER.search(text):
        return letters[0]
    words = _WORD.findall(text.lower())
    return _unit_in_a_row(words) or _frequent_words(words)


def _may_repeat(text: str) -> bool:
    """Whether one of some probes, evenly spaced and at the end, occurs often. Without a Python loop over the text."""
    last = len(text) - _PROBE
    if last < 5 * _PROBE:
        return False
    starts = [*range(0, last, max(_APART, last // _PROBES)), last]
    return any(text.count(text[start : start + _PROBE]) >= _OFTEN for start in starts)


def _unit_in_a_row(words: Sequence[str]) -> str | None:
    """The shortest unit of words that follows itself often enough to be a loop."""
    ids = np.unique(np.array(words, dtype=object).astype(str), return_inverse=True)[1] if words else np.empty(0, int)
    for period in range(1, min(LONGEST, len(ids) // 3) + 1):
        start, length = _longest_run(ids[period:] == ids[:-period])
        covered = length + period
        if covered < 3 * period:
            continue
        unit = words[start : start + period]
        characters = sum(map(len, words[start : start + covered]))
        if _is_loop(unit, repeats=covered / period, characters=characters):
            return " ".join(unit)
    return None


def _is_loop(unit: Sequence[str], *, repeats: float, characters: int) -> bool:
    kinds = len({word for word in unit if word.isalpha() and len(word) > 1})
    if kinds >= 20:
        return repeats >= 3 and characters >= 400
    if kinds >= 3:
        return repeats >= 5 and characters >= 160
    return kinds > 0 and repeats >= 16 and characters >= 120


def _longest_run(is_equal: np.ndarray) -> tuple[int, int]:
    """Start and length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], is_equal.view(np.int8), [0]))))
    if not edges.size:
        return 0, 0
    lengths = edges[1::2] - edges[::2]
    longest = int(lengths.argmax())
    return int(edges[2 * longest]), int(lengths[longest])


def _frequent_words(words: Sequence[str]) -> str | None:
    """The most frequent run of words, if runs that occur often make up nearly all of a text."""
    if len(words) < 2 * _OFTEN * _GRAM:
        return None
    grams = [tuple(words[start : start + _GRAM]) for start in range(len(words) - _GRAM + 1)]
    counts = Counter(gram for gram in grams if sum(map(str.isalpha, gram)) >= _GRAM // 2)
    is_repeated = np.zeros(len(words), bool)
    for start, gram in enumerate(grams):
        if counts[gram] >= _OFTEN:
            is_repeated[start : start + _GRAM] = True
    return " ".join(counts.most_common(1)[0][0]) if is_repeated.mean() >= _SHARE else None
