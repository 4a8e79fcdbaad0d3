"""A reward model's forward pass on a packed row: the head at the last token of each branch, and nowhere else."""

from __future__ import annotations

import types
from typing import Any

import torch

from zephyr_ray.training.packed.attention import IMPLEMENTATION, Backend, attending
from zephyr_ray.training.packed.layout import PackedRow, spans


def add_packed_rewards(model: Any, backend: Backend) -> None:
    """Adds `model(packed_row=row, ends=branch_ends(row))` to a sequence classifier: a reward for each branch, [N].

    Other calls are as before.
    """
    model.set_attn_implementation(IMPLEMENTATION)
    plain = model.forward

    def forward(
        self: Any,
        *args: Any,
        packed_row: PackedRow | None = None,
        ends: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if packed_row is None:
            return plain(*args, **kwargs)
        with attending(packed_row, backend):
            output = self.base_model(input_ids=packed_row.tokens, position_ids=packed_row.positions, use_cache=False)
            return self.score(output.last_hidden_state[0, ends])[:, 0]

    model.forward = types.MethodType(forward, model)


def branch_ends(row: PackedRow) -> torch.Tensor:
    """The index in the row of each branch's last token: int64 [N]. No branch is empty."""
    return torch.tensor([span.end - 1 for span in spans(row.segments) if span.prompt_end > span.prompt_start])
