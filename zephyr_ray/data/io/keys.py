"""Ids as pairs of 64-bit numbers in numpy arrays, and looking them up in sorted ones.

An id is 32 hex digits (`fingerprints.content_id`), that is 16 bytes: two numbers hold it exactly, in a fifth of the
memory of a Python string, and comparing numbers orders ids as comparing text does. Any other text stands for the first
16 bytes of its BLAKE2b hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

_DIGITS = 32
_HEX = re.compile(f"[0-9a-f]{{{_DIGITS}}}")
_BAD = 255
_NIBBLES = np.full(256, _BAD, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def keys_of(ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The keys ([2, n]) of ids (text without nulls)."""
    chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
    return np.concatenate([np.empty((2, 0), np.uint64), *map(_of_chunk, chunks)], axis=1)


def sorted_keys(keys: np.ndarray) -> np.ndarray:
    """The columns of keys in their order; other rows than the first two go with them."""
    order = np.argsort(keys[0], kind="stable")
    high, low = keys[0][order], keys[1][order]
    if np.any((high[1:] == high[:-1]) & (low[1:] < low[:-1])):  # of hashes this is one pair of ids in 2^64
        order = np.lexsort((keys[1], keys[0]))
    return keys[:, order]


def is_first(ordered: np.ndarray) -> np.ndarray:
    """Of sorted keys, whether each ([n], bool) is the first that is like it."""
    first = np.ones(ordered.shape[1], bool)
    first[1:] = np.any(ordered[:2, 1:] != ordered[:2, :-1], axis=0)
    return first


def shard_of(keys: np.ndarray, shards: int) -> np.ndarray:
    """The shard of each key ([n]) where there are so many of them, a power of two."""
    bits = shards.bit_length() - 1
    return keys[0] >> np.uint64(64 - bits) if bits else np.zeros(keys.shape[1], np.uint64)


def of_shard(ordered: np.ndarray, shard: int, shards: int) -> np.ndarray:
    """The columns of sorted keys that are of one shard, without a copy."""
    first, end = np.searchsorted(shard_of(ordered, shards), [shard, shard + 1])
    return ordered[:, first:end]


def find(tables: Sequence[np.ndarray], keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Looks keys up in a table.

    Args:
        tables: The table's shards.
        keys: What is looked for, in any order ([2, n]).

    Returns:
        Whether each key is there ([n], bool), and its values ([k, n], uint64), 0 where it is not.
    """
    there = np.zeros(keys.shape[1], bool)
    values = np.zeros((tables[0].shape[0] - 2, keys.shape[1]), np.uint64)
    shards = shard_of(keys, len(tables))
    for shard in np.unique(shards):
        mine, table = np.flatnonzero(shards == shard), tables[int(shard)]
        places = _places(table, keys[:, mine])
        found = places >= 0
        there[mine] = found
        values[:, mine[found]] = table[2:, places[found]]
    return there, values


def _places(table: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where in a sorted table each key is ([n]), or -1."""
    places = np.searchsorted(table[0], keys[0])
    found = np.full(len(places), -1)
    asked = np.arange(len(places))
    while len(asked):  # once, but for ids of which the first 8 bytes are equal
        inside = places[asked] < table.shape[1]
        asked = asked[inside]
        here = places[asked]
        asked = asked[table[0, here] == keys[0, asked]]
        here = places[asked]
        same = table[1, here] == keys[1, asked]
        found[asked[same]] = here[same]
        asked = asked[~same]
        places[asked] += 1
    return found


def _of_chunk(ids: pa.Array) -> np.ndarray:
    ids = ids.cast(pa.large_string())
    _, offsets, data = ids.buffers()
    if not len(ids):
        return np.empty((2, 0), np.uint64)
    bounds = np.frombuffer(offsets, np.int64)[ids.offset : ids.offset + len(ids) + 1]
    if np.all(np.diff(bounds) == _DIGITS):
        text = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]].reshape(len(ids), _DIGITS)
        nibbles = _NIBBLES[text]
        if not np.any(nibbles == _BAD):
            octets = np.ascontiguousarray((nibbles[:, 0::2] << 4) | nibbles[:, 1::2])
            return _numbers(octets)
    each = b"".join(_octets(text) for text in ids.to_pylist())
    return _numbers(np.frombuffer(each, np.uint8).reshape(len(ids), _DIGITS // 2))


def _numbers(octets: np.ndarray) -> np.ndarray:
    """[n, 16] bytes -> [2, n] numbers that are ordered as the bytes are."""
    return np.ascontiguousarray(octets.view(">u8").astype(np.uint64).T)


def _octets(text: str) -> bytes:
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    return hashlib.blake2b(text.encode(), digest_size=_DIGITS // 2).digest()
