"""Reads a model and a padded batch of pairs -> log-probabilities of each completion, in nats."""

from __future__ import annotations

from typing import Any

import torch


def pair_logps(model: Any, batch: dict[str, torch.Tensor], ld_alpha: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of log-probabilities of the chosen and of the rejected completions.

    Args:
        model: A causal language model that TRL's `add_fused_lm_head` was applied to.
        batch: TRL's preference batch: `input_ids`, `attention_mask`, `completion_mask`, each [2 B, L], the chosen
            sequences first.
        ld_alpha: Weight of the tokens beyond the shorter completion's length (LD-DPO, arXiv 2409.06411); None is 1.

    Returns:
        Two float32 tensors [B].
    """
    mask = batch["completion_mask"][:, 1:]
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    per_token = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        labels=labels,
        use_cache=False,
        fused_lm_head=True,
    ).log_probs.float()
    if ld_alpha is not None:
        per_token = per_token * length_desensitized(mask, ld_alpha)
    chosen, rejected = per_token.sum(dim=1).chunk(2)
    return chosen, rejected


def length_desensitized(mask: torch.Tensor, ld_alpha: float) -> torch.Tensor:
    """Weights [2 B, L]: 1 up to the length of the pair's shorter completion, `ld_alpha` beyond, 0 off the mask."""
    position = mask.cumsum(dim=1)
    chosen, rejected = mask.sum(dim=1).chunk(2)
    shared = torch.minimum(chosen, rejected).repeat(2).unsqueeze(1)
    return torch.where(position <= shared, 1.0, ld_alpha) * mask
