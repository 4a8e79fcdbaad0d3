"""Shingles of dialogues: the hashes of every run of so many words, case and punctuation folded.

A word is a run of letters and digits; every ideograph is one of its own. Words and runs are hashed for many
dialogues at once, in numpy:

    h(word) = mix(sum_i T[byte_i] P^i mod 2^64)        h(run) = mix(sum_j h(word_j) Q^(n-1-j) mod 2^64)

with T random, so that two words or runs share a hash with a probability of about 2^-64. A dialogue with fewer words
than a run has one shingle, of all its words; one without any word has none.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BYTES = 1 << 18  # of text that is hashed at a time: about 40 bytes of memory for each
_IDEOGRAPH = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
_NO_ASCII = re.compile(r"[^\x00-\x7f]+")
_NO_WORD = re.compile(r"[^\w\x00-\x7f]+")

_NOWHERE = np.zeros(1, np.int64)
_BASE = 0x9E3779B97F4A7C15
_RUN_BASE = np.uint64(0xD1342543DE82EF95)


class Shingles(NamedTuple):
    """The shingles of several dialogues, one after the other."""

    hashes: np.ndarray
    """[n], uint64: those of a dialogue in the order of its text, repeats among them."""
    offsets: np.ndarray
    """[dialogues + 1], int64: where each dialogue's begin, and where the last one's end."""

    def take(self, dialogues: np.ndarray) -> Shingles:
        """Those of some dialogues, in this order ([k], their places)."""
        counts = np.diff(self.offsets)[dialogues]
        offsets = np.concatenate([_NOWHERE, np.cumsum(counts)])
        places = np.repeat(self.offsets[:-1][dialogues] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Shingles(self.hashes[places], offsets)


def joined(parts: Iterable[Shingles]) -> Shingles:
    """The shingles of several lots of dialogues, one after the other."""
    hashes, counts = [np.empty(0, np.uint64)], [_NOWHERE]
    for part in parts:
        hashes.append(part.hashes)
        counts.append(np.diff(part.offsets))
    return Shingles(np.concatenate(hashes), np.cumsum(np.concatenate(counts)))


def shingles(messages: pa.ChunkedArray | pa.Array, words: int) -> Shingles:
    """The shingles of dialogues (`schemas.MESSAGES`) of so many words."""
    return joined(_of_part(part, words) for part in _parts(messages))


def unique_shingles(messages: pa.ChunkedArray | pa.Array, words: int) -> Shingles:
    """The shingles of dialogues, each once in a dialogue and sorted."""
    found = shingles(messages, words)
    sets = [distinct(found.hashes[start:end]) for start, end in itertools.pairwise(found.offsets)]
    offsets = np.cumsum([0, *map(len, sets)])
    return Shingles(np.concatenate([np.empty(0, np.uint64), *sets]), offsets)


def distinct(numbers: np.ndarray) -> np.ndarray:
    """Numbers, each once, sorted: a tenth of the time of `np.unique`, which hashes them."""
    ordered = np.sort(numbers)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]


def mix(values: np.ndarray) -> np.ndarray:
    """Spreads what differs between 64-bit numbers over all of their bits (splitmix64's last steps)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _parts(messages: pa.ChunkedArray | pa.Array) -> Iterator[pa.ListArray]:
    """Dialogues, some at a time: as many as have about `_BYTES` of text, at least one."""
    for chunk in messages.chunks if isinstance(messages, pa.ChunkedArray) else [messages]:
        start = 0
        for end in _ends(chunk):
            yield chunk.slice(start, end - start)
            start = end


def _ends(chunk: pa.ListArray) -> list[int]:
    sizes = np.concatenate([[0], np.cumsum(pc.binary_length(_contents(chunk)).to_numpy(zero_copy_only=False))])
    sizes = sizes[_offsets(chunk)]
    ends: list[int] = []
    while (start := ends[-1] if ends else 0) < len(chunk):
        fits = int(np.searchsorted(sizes, sizes[start] + _BYTES, side="right")) - 1
        ends.append(max(start + 1, fits))
    return ends


def _contents(dialogues: pa.ListArray) -> pa.Array:
    """The text of every message of dialogues."""
    return pc.fill_null(dialogues.flatten().field("content"), "")


def _offsets(dialogues: pa.ListArray) -> np.ndarray:
    """Where in `_contents` each dialogue begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(dialogues), 0).to_numpy())])


def _of_part(dialogues: pa.ListArray, words: int) -> Shingles:
    hashes, message_words = _words(_folded(_contents(dialogues)))
    return _runs(hashes, message_words[_offsets(dialogues)], words)


def _folded(texts: pa.Array) -> pa.Array:
    """Texts whose characters outside of ASCII are in lower case if they are parts of words, and otherwise spaces. ASCII
    is folded when it is hashed (`_IS_WORD`, `_NUMBERS`)."""
    is_other = pc.invert(pc.string_is_ascii(texts))
    if not pc.any(is_other).as_py():
        return texts
    folded = [_NO_ASCII.sub(_fold, text) for text in texts.filter(is_other).to_pylist()]
    return pc.replace_with_mask(texts, is_other, pa.array(folded, texts.type))


def _fold(run: re.Match[str]) -> str:
    return _IDEOGRAPH.sub(r" \1 ", _NO_WORD.sub(" ", run[0].casefold()))


def _words(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of the words of folded texts ([n]), and where in them each text begins ([texts + 1])."""
    texts = texts.cast(pa.large_string())
    _, offsets, buffer = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1] if len(texts) else _NOWHERE
    data = np.frombuffer(buffer or b"", np.uint8)[bounds[0] : bounds[-1]]
    bounds = bounds - bounds[0]
    inside = np.zeros(len(data) + 1, bool)
    np.take(_IS_WORD, data, out=inside[:-1])
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    ends = inside.copy()
    ends[:-1] &= ~inside[1:]
    edges = bounds[(bounds > 0) & (bounds < len(data))]  # a message ends its last word
    begins[edges] = inside[edges]
    ends[edges - 1] = inside[edges - 1]
    first, last = np.flatnonzero(begins), np.flatnonzero(ends) + 1
    powers, inverse_powers = _powers(max(_BYTES, 1 << len(data).bit_length()))
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(_NUMBERS[data] * powers[: len(data)], out=sums[1:])
    hashes = mix((sums[last] - sums[first]) * inverse_powers[first])
    return hashes, np.searchsorted(first, bounds)


def _runs(hashes: np.ndarray, bounds: np.ndarray, words: int) -> Shingles:
    """The shingles of dialogues whose words' hashes lie one after the other, from and to `bounds`."""
    counts = np.diff(bounds)
    places = np.arange(len(hashes))
    end = np.repeat(bounds[1:], counts)
    runs = hashes.copy()
    for step in range(1, words):
        longer = np.flatnonzero(places + step < end)
        runs[longer] = runs[longer] * _RUN_BASE + hashes[longer + step]
    is_whole = (places + words <= end) | (places == np.repeat(bounds[:-1], counts))
    return Shingles(
        mix(runs[is_whole]), np.concatenate([[0], np.cumsum(np.minimum(counts, np.maximum(1, counts - words + 1)))])
    )


@functools.lru_cache(maxsize=2)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """P^i and P^-i mod 2^64 for i < size."""
    return _powers_of(_BASE, size), _powers_of(pow(_BASE, -1, 1 << 64), size)


def _powers_of(base: int, size: int) -> np.ndarray:
    factors = np.full(size, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _is_word() -> np.ndarray:
    return np.array([code >= 128 or chr(code).isalnum() for code in range(256)])


def _numbers() -> np.ndarray:
    """A random number for each byte, the same for upper and lower case."""
    lower = np.array([ord(chr(code).lower()) if code < 128 else code for code in range(256)], np.uint64)
    return mix((lower + np.uint64(1)) * np.uint64(_BASE))


_IS_WORD = _is_word()
_NUMBERS = _numbers()
