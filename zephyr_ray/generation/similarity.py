"""Find out whether a text is like an earlier one by ROUGE-L, with an index in place of comparing it with all of them.

ROUGE-L (Lin, 2004) of two texts of m and n words with a longest common subsequence of L words has the F-measure
2 L / (m + n). Words are runs of letters and digits, in lower case.

The index leaves out only texts that cannot be alike, so it decides as comparing with all of them does:

- L is at most the number of words that both have, each as often as it is in both. Let every text's words be ordered,
  the rarest first. Where two texts have to share at least `a` words, the first m - a + 1 of one and the first
  n - a + 1 of the other share one (prefix filtering: Chaudhuri et al. 2006, Bayardo et al. 2007). So only texts with a
  word of the new one among their own first ones are looked at.
- Each word flips one bit of 256 in its text's signature. Two signatures differ in no more bits than the texts have
  words that they do not share, of which there are at most m + n - 2 L (bitmap filtering, arXiv 1711.07295).
- The subsequences of those that are left are computed.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from zephyr_ray.config.member_seeds import hash_64

_WORD = re.compile(r"[^\W_]+")
_LANES = 4  # of 64 bits: a signature
_FIRST_ORDER = 256  # texts, after which words are ordered by how often they are there; then at each doubling
_ROOM = 1024


def words_of(text: str) -> list[str]:
    """The words that are compared."""
    return _WORD.findall(text.lower())


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """The F-measure of two lists of words; 0 if both are empty."""
    total = len(first) + len(second)
    return 2 * common_subsequence(first, second) / total if total else 0.0


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence (Hyyrö's bit-parallel form, one bit for each word of `first`)."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    everything = (1 << len(first)) - 1
    row = everything
    for word in second:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & everything
    return len(first) - row.bit_count()


class SimilarTexts:
    """Texts, of which no two are alike."""

    def __init__(self, threshold: float):
        """
        Args:
            threshold: Two texts are alike if their ROUGE-L F-measure is above this, in (0, 1].
        """
        self._threshold = threshold
        self._texts: list[list[str]] = []
        self._lengths = np.zeros(_ROOM, np.int64)
        self._signatures = np.zeros((_ROOM, _LANES), np.uint64)
        self._frequency: Counter[str] = Counter()
        self._rank: dict[str, int] = {}
        self._ordered_at = 0
        self._postings: dict[tuple[str, int], array[int]] = {}
        """Numbers of the texts that have a word, the how-manieth of its kind, among their first ones."""

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> bool:
        """Adds a text unless it is like an earlier one, and returns whether it did."""
        words = words_of(text)
        if self.has_like(words):
            return False
        self._insert(words)
        return True

    def has_like(self, words: Sequence[str]) -> bool:
        """Whether one of the texts is like this one."""
        for number in self._candidates(words):
            if self._is_above(common_subsequence(words, self._texts[number]), len(words) + len(self._texts[number])):
                return True
        return False

    def _is_above(self, shared: int, total: int) -> bool:
        return 2 * shared / total > self._threshold

    def _candidates(self, words: Sequence[str]) -> list[int]:
        """Numbers of the texts that may be like this one, the likeliest first."""
        lists = [self._postings[key] for key in self._first_words(words) if key in self._postings]
        if not lists:
            return []
        numbers = np.unique(np.concatenate([np.frombuffer(each, np.uint32) for each in lists]))
        total = self._lengths[numbers] + len(words)
        # In exact numbers 2 L > threshold x total; a word of tolerance, as these are floating-point numbers.
        least = self._threshold * total - 1e-6
        fits = 2 * np.minimum(self._lengths[numbers], len(words)) >= least
        numbers, total, least = numbers[fits], total[fits], least[fits]
        differing = np.bitwise_count(self._signatures[numbers] ^ _signature(words)).sum(axis=1, dtype=np.int64)
        fits = total - differing >= least
        order = np.argsort(differing[fits] / total[fits], kind="stable")
        return [int(number) for number in numbers[fits][order]]

    def _first_words(self, words: Sequence[str]) -> list[tuple[str, int]]:
        """The rarest words, so many that two texts that are alike share one of them; each with its number among those
        of its kind.

        A text of n words that is like one of m has L <= min(m, n) words in common with it, and 2 L > t (m + n). So
        n > m t / (2 - t), and L > t / 2 (m + n) > m t / (2 - t) too.
        """
        seen: Counter[str] = Counter()
        keys = []
        for word in words:
            keys.append((word, seen[word]))
            seen[word] += 1
        keys.sort(key=lambda key: (self._rank.get(key[0], 0), key))
        fewest_shared = math.floor(len(words) * self._threshold / (2 - self._threshold) - 1e-6) + 1
        return keys[: len(words) - fewest_shared + 1]

    def _insert(self, words: list[str]) -> None:
        number = len(self._texts)
        self._texts.append(words)
        self._frequency.update(set(words))
        if number == len(self._lengths):
            self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._lengths[number], self._signatures[number] = len(words), _signature(words)
        if len(self._texts) >= max(_FIRST_ORDER, 2 * self._ordered_at):
            self._order_again()
        else:
            self._post(number)

    def _order_again(self) -> None:
        """Orders words by the number of texts that have them; unknown ones are the rarest."""
        self._ordered_at = len(self._texts)
        self._rank = dict(self._frequency)
        self._postings = {}
        for number in range(len(self._texts)):
            self._post(number)

    def _post(self, number: int) -> None:
        for key in self._first_words(self._texts[number]):
            self._postings.setdefault(key, array("I")).append(number)


@lru_cache(maxsize=1 << 18)
def _bit(word: str) -> int:
    return 1 << hash_64(word) % (64 * _LANES)


def _signature(words: Sequence[str]) -> np.ndarray:
    """256 bits ([4], uint64), each flipped by every word that hashes to it."""
    bits = 0
    for word in words:
        bits ^= _bit(word)
    return np.frombuffer(bits.to_bytes(8 * _LANES, "little"), "<u8")
