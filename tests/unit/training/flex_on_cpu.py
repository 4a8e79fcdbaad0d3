"""FlexAttention on a CPU, with a backward by its definition: torch has one for GPUs alone.

Only the compiled kernel looks at which blocks are listed; compiled or not, each asks `mask_mod` and `score_mod`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention


@functools.cache
def _compiled() -> Any:
    """One for all tests of a process: compiling takes seconds."""
    return torch.compile(flex_attention, dynamic=True)


def compiled_flex(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
    """`flex_attention`, compiled as on a GPU."""
    return _Differentiable.apply(_compiled(), query, key, value, how)


def plain_flex(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
    """`flex_attention`, not compiled."""
    return _Differentiable.apply(flex_attention, query, key, value, how)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, kernel: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: dict[str, Any]
    ) -> torch.Tensor:
        context.save_for_backward(query, key, value)
        context.how = how
        out: torch.Tensor = kernel(query.detach(), key.detach(), value.detach(), **how)
        return out

    @staticmethod
    def backward(context: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        leaves = [states.detach().requires_grad_() for states in context.saved_tensors]
        with torch.enable_grad():
            out = _defined(*leaves, **context.how)
        return None, *torch.autograd.grad(out, leaves, upstream), None


def _defined(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Callable[..., torch.Tensor] | None,
    block_mask: BlockMask,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor:
    """What FlexAttention computes, in float32 with a dense mask."""
    groups = query.shape[1] // key.shape[1]
    keys, values = (states.float().repeat_interleave(groups, dim=1) for states in (key, value))
    place = torch.arange(query.shape[2])
    scores = query.float() @ keys.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if score_mod is not None:
        scores = score_mod(scores, 0, 0, place[:, None], place)
    seen = block_mask.mask_mod(torch.tensor(0), torch.tensor(0), place[:, None], place)
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values).to(query.dtype)
