"""FlexAttention's block mask of a packed row, made without ever holding a dense one.

A token sees two ranges of keys: of its own span up to itself, and of its prompt. From the ranges' ends it follows
which of the 128 x 128 blocks are empty, full or partly visible; only partly visible ones ask `mask_mod` token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from zephyr_ray.training.packed.layout import Segment, spans

BLOCK = 128


class SeenKeys(NamedTuple):
    """The places in the row that each token sees: own .. itself, and prompt .. prompt_end - 1. Each is int32 [T]."""

    own: np.ndarray
    prompt: np.ndarray
    prompt_end: np.ndarray


def seen_keys(segments: Sequence[Segment], window: int | None = None) -> SeenKeys:
    """The rule of `packed.layout.visible`, as ranges."""
    row = np.array([span for span in spans(segments) if span.end > span.start], dtype=np.int32)
    start, _, prompt, prompt_end = row.repeat(row[:, 1] - row[:, 0], axis=0).T
    if window is None:
        return SeenKeys(start, prompt, prompt_end)
    place = np.arange(len(start), dtype=np.int32)
    hidden = np.maximum(place - start + prompt_end - prompt + 1 - window, 0)  # the sequence's first tokens
    return SeenKeys(np.maximum(start, place + 1 - window), np.minimum(prompt + hidden, prompt_end), prompt_end)


def block_mask(segments: Sequence[Segment], device: torch.device | str, window: int | None = None) -> Any:
    """FlexAttention's BlockMask of a row whose length is a multiple of 128."""
    from torch.nn.attention.flex_attention import BlockMask

    seen = seen_keys(segments, window)
    some, every = visible_blocks(seen)
    length = segments[-1].end
    return BlockMask.from_kv_blocks(
        *_listed(some & ~every, device),
        *_listed(every, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=mask_mod(seen, device),
        seq_lengths=(length, length),
    )


def mask_mod(seen: SeenKeys, device: torch.device | str) -> Callable[..., torch.Tensor]:
    """FlexAttention's rule on token indices. Three look-ups by query alone, with a window or without: one kernel."""
    own, prompt, prompt_end = (
        torch.from_numpy(np.ascontiguousarray(ends)).to(device, non_blocking=True) for ends in seen
    )

    def may_see(batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
        in_own = (key >= own[query]) & (key <= query)
        return in_own | ((key >= prompt[query]) & (key < prompt_end[query]))

    return may_see


def visible_blocks(seen: SeenKeys) -> tuple[np.ndarray, np.ndarray]:
    """Two bool matrices [blocks, blocks], by (query, key): some token pair is visible; every one is."""
    own, prompt, prompt_end = seen
    end = np.arange(1, len(own) + 1)
    some = _tokens_by_block(own // BLOCK, -(-end // BLOCK)) + _tokens_by_block(
        prompt // BLOCK, np.where(prompt < prompt_end, -(-prompt_end // BLOCK), 0)
    )
    joined = prompt_end == own  # of the first branch: its prompt's last tokens may share a block with it
    whole = _tokens_by_block(-(-np.where(joined, prompt, own) // BLOCK), end // BLOCK) + _tokens_by_block(
        -(-prompt // BLOCK), np.where(joined, 0, prompt_end // BLOCK)
    )
    return some > 0, whole == BLOCK


def _tokens_by_block(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """[query blocks, key blocks]: how many of a query block's tokens have the key block among first .. last - 1."""
    count = -(-len(first) // BLOCK)
    ends = np.zeros((count, count + 1), dtype=np.int64)
    there = np.flatnonzero(first < last)
    np.add.at(ends, (there // BLOCK, first[there]), 1)
    np.add.at(ends, (there // BLOCK, last[there]), -1)
    return ends.cumsum(axis=1)[:, :-1]


def _listed(blocks: np.ndarray, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """FlexAttention's form: for each query block how many key blocks, and their numbers first in a row [1, 1, Q, K]."""
    counts = torch.from_numpy(blocks.sum(1).astype(np.int32))
    order = torch.from_numpy(np.argsort(~blocks, axis=1, kind="stable").astype(np.int32))
    listed = counts[None, None], order[None, None].contiguous()
    return listed[0].to(device, non_blocking=True), listed[1].to(device, non_blocking=True)
