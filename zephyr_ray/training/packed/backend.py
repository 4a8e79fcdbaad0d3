"""Chooses the backend of packed attention that works on these machines, one for all ranks."""

from __future__ import annotations

import logging
import socket
from typing import Any, Literal

import torch

from zephyr_ray.errors import UserError
from zephyr_ray.training.packed.attention import Backend, FlexAttention, choose_backend, head_shapes
from zephyr_ray.training.packed.blocks import BLOCK
from zephyr_ray.training.packed.layout import pack

logger = logging.getLogger(__name__)


def working_backend(
    wanted: Literal["auto", "sdpa", "flex", "flash"],
    device: str,
    config: Any,
    dtype: torch.dtype,
) -> Backend:
    """`choose_backend`, and instead of a FlexAttention that does not compile on some rank torch's sdpa on all.

    Args:
        wanted: What the recipe says.
        device: cuda or cpu.
        config: The model's configuration. What is compiled here is the kernel that its layers run.
        dtype: Of its queries, keys and values.

    Raises:
        UserError: The recipe asks for what is not there, or for FlexAttention by name and it does not compile.
    """
    backend = choose_backend(wanted, device)
    if backend != "flex":
        return backend
    reason = why_flex_fails(config, dtype, device)
    if _works_everywhere(reason is None, device):
        return "flex"
    problem = f"on {socket.gethostname()}: {reason}" if reason else "on another worker, which says why"
    if wanted == "flex":
        raise UserError(f"training.packed_attention=flex does not compile {problem}; auto takes sdpa instead")
    logger.warning("FlexAttention does not compile %s. Packed rows take torch's sdpa, which is slower.", problem)
    return "sdpa"


def why_flex_fails(config: Any, dtype: torch.dtype, device: str) -> str | None:
    """Runs FlexAttention forward and backward on a row of several blocks -> None, or one line that says what is amiss.

    Compiling takes a C compiler, Python's headers and a driver that knows Triton's code; each is missing in a way of
    its own.
    """
    config = config.get_text_config()
    heads, key_heads, width = head_shapes(config)
    softcap = getattr(config, "attn_logit_softcapping", None)
    row = pack([[0] * BLOCK], [([0] * BLOCK, [0] * BLOCK)], BLOCK)
    states = [
        torch.zeros(1, count, row.tokens.shape[1], width, dtype=dtype, device=device, requires_grad=True)
        for count in (heads, key_heads, key_heads)
    ]
    try:
        attention = FlexAttention(row, torch.device(device))
        attention(states[0], states[1], states[2], width**-0.5, softcap).sum().backward()
    except Exception as error:  # of torch, Triton, a compiler or the driver
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def _works_everywhere(works: bool, device: str) -> bool:
    """On all ranks of torch's process group, where there is one."""
    if not torch.distributed.is_initialized():
        return works
    everywhere = torch.tensor(int(works), device=device)
    torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
    return bool(everywhere)
