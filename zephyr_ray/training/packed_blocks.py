"""Reads the segments of a packed row -> FlexAttention's block mask, without ever holding a dense one.

Which of the 128 x 128 blocks are empty, full or partly visible is worked out on pieces (prompts and branches), some
tens of them in a row; only partly visible blocks ask `mask_mod` token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from zephyr_ray.training.packed_layout import Piece, Segment, pieces

BLOCK = 128


def block_mask(segments: Sequence[Segment], device: torch.device | str) -> Any:
    """FlexAttention's BlockMask of a row whose length is a multiple of 128."""
    from torch.nn.attention.flex_attention import BlockMask

    some, every = visible_blocks(segments)
    length = segments[-1].end
    return BlockMask.from_kv_blocks(
        *_listed(some & ~every, device),
        *_listed(every, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=mask_mod(segments, device),
        seq_lengths=(length, length),
    )


def mask_mod(segments: Sequence[Segment], device: torch.device | str) -> Callable[..., torch.Tensor]:
    """FlexAttention's rule on token indices: own piece up to itself, or the prompt. Three look-ups by query alone."""
    row = [piece for piece in pieces(segments) if piece.end > piece.start]
    lengths = torch.tensor([piece.end - piece.start for piece in row])
    bounds = torch.tensor([[piece.start, piece.prompt_start, piece.prompt_end] for piece in row], dtype=torch.int32)
    own, prompt, prompt_end = bounds.repeat_interleave(lengths, dim=0).to(device, non_blocking=True).unbind(dim=1)
    own, prompt, prompt_end = own.contiguous(), prompt.contiguous(), prompt_end.contiguous()

    def may_see(batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
        in_own = (key >= own[query]) & (key <= query)
        return in_own | ((key >= prompt[query]) & (key < prompt_end[query]))

    return may_see


def visible_blocks(segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
    """Two bool matrices [blocks, blocks], by (query, key): some token pair may be visible; every one is."""
    row = [piece for piece in pieces(segments) if piece.end > piece.start]
    ends = np.array([piece.end for piece in row])
    starts = np.arange(0, ends[-1], BLOCK)
    first = np.searchsorted(ends, starts, side="right")
    last = np.searchsorted(ends, np.minimum(starts + BLOCK, ends[-1]) - 1, side="right")
    sums = np.pad(_pieces_seen(row).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    top, bottom, left, right = first[:, None], last[:, None] + 1, first[None, :], last[None, :] + 1
    count = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    blocks = np.arange(len(starts))
    before, not_after = blocks[None, :] < blocks[:, None], blocks[None, :] <= blocks[:, None]
    return (count > 0) & not_after, (count == (bottom - top) * (right - left)) & before


def _pieces_seen(row: list[Piece]) -> np.ndarray:
    """Which piece (row) sees tokens of which (column), itself included."""
    starts = np.array([piece.start for piece in row])
    prompts = np.array([piece.prompt_start if piece.prompt_end > piece.prompt_start else -1 for piece in row])
    return (np.eye(len(row), dtype=bool) | (prompts[:, None] == starts[None, :])).astype(np.int64)


def _listed(blocks: np.ndarray, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """FlexAttention's form: for each query block how many key blocks, and their numbers first in a row [1, 1, Q, K]."""
    counts = torch.from_numpy(blocks.sum(1).astype(np.int32))
    order = torch.from_numpy(np.argsort(~blocks, axis=1, kind="stable").astype(np.int32))
    listed = counts[None, None], order[None, None].contiguous()
    return listed[0].to(device, non_blocking=True), listed[1].to(device, non_blocking=True)
