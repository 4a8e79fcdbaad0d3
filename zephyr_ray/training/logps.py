"""Reads a model and pairs of token ids -> log-probabilities of each completion, in nats.

Two ways that give the same numbers: `PackedScorer` computes each prompt once and without padding, `PaddedScorer` as TRL
does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference

from zephyr_ray.training.packed_attention import Backend, row_multiple
from zephyr_ray.training.packed_check import check_equals_unpacked
from zephyr_ray.training.packed_logps import PairGrid, add_packed_forward
from zephyr_ray.training.packed_trainer import pack_pairs
from zephyr_ray.training.packing import partition

Pair = dict[str, list[int]]


class PackedScorer:
    """Scores pairs in packed rows of at most `budget` tokens (a larger pair is a row alone).

    Args:
        model: A causal language model that TRL's `add_fused_lm_head` was applied to.
        ld_alpha: As in `completion_sums`.

    Raises:
        UserError: Packed log-probs are not those of plain sequences.
    """

    def __init__(self, model: Any, ld_alpha: float | None, budget: int, backend: Backend):
        self.model, self.ld_alpha, self.budget, self.backend = model, ld_alpha, budget, backend
        add_packed_forward(model, backend)
        check_equals_unpacked(model, row_multiple(backend))

    def __call__(self, pairs: list[Pair]) -> tuple[np.ndarray, np.ndarray]:
        """Two float32 arrays, by pair: the chosen and the rejected completions' sums."""
        sums = np.empty((2, len(pairs)), dtype=np.float32)
        (rows,) = partition([sum(map(len, pair.values())) for pair in pairs], 1, self.budget)
        for indices in rows:
            sums[:, indices] = self._row([pairs[index] for index in indices]).cpu().numpy()
        return sums[0], sums[1]

    @torch.no_grad()
    def _row(self, pairs: list[Pair]) -> torch.Tensor:
        grid = PairGrid(pack_pairs(pairs, row_multiple(self.backend)).to(self.model.device))
        per_token = grid.scatter(self.model(packed_row=grid.row)).log_probs
        return completion_sums(per_token, grid.batch()["completion_mask"][:, 1:], self.ld_alpha)


class PaddedScorer:
    """Scores pairs as one padded batch, TRL's way: the prompt twice, all sequences as long as the longest."""

    def __init__(self, model: Any, ld_alpha: float | None, pad_token_id: int):
        self.model, self.ld_alpha = model, ld_alpha
        self.collate = DataCollatorForPreference(pad_token_id=pad_token_id)

    @torch.no_grad()
    def __call__(self, pairs: list[Pair]) -> tuple[np.ndarray, np.ndarray]:
        """Two float32 arrays, by pair: the chosen and the rejected completions' sums."""
        batch = {name: tensor.to(self.model.device) for name, tensor in self.collate(pairs).items()}
        per_token = self.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100),
            use_cache=False,
            fused_lm_head=True,
        ).log_probs
        chosen, rejected = completion_sums(per_token, batch["completion_mask"][:, 1:], self.ld_alpha).cpu().numpy()
        return chosen, rejected


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
