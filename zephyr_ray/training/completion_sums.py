"""Log-probs of completion tokens -> a sum for each completion, as DPO compares it."""

from __future__ import annotations

from typing import Any

import torch


def completion_sums(per_token: Any, mask: torch.Tensor, ld_alpha: float | None) -> torch.Tensor:
    """Sums of log-probabilities of the chosen (row 0) and of the rejected completions (row 1).

    Args:
        per_token: [2 B, L], the chosen sequences first.
        mask: [2 B, L], 1 on completion tokens.
        ld_alpha: Weight of the tokens beyond the shorter completion's length (LD-DPO, arXiv 2409.06411); None is 1.

    Returns:
        float32 [2, B].
    """
    per_token = per_token.float()
    if ld_alpha is not None:
        per_token = per_token * length_desensitized(mask, ld_alpha)
    return per_token.sum(dim=1).view(2, -1)


def length_desensitized(mask: torch.Tensor, ld_alpha: float) -> torch.Tensor:
    """Weights [2 B, L]: 1 up to the length of the pair's shorter completion, `ld_alpha` beyond, 0 off the mask."""
    position = mask.cumsum(dim=1)
    chosen, rejected = mask.sum(dim=1).chunk(2)
    shared = torch.minimum(chosen, rejected).repeat(2).unsqueeze(1)
    return torch.where(position <= shared, 1.0, ld_alpha) * mask
