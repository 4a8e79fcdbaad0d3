"""The loss of a reward model on pairs (Bradley and Terry, Biometrika 39, 1952; arXiv 2203.02155, equation 1)."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def bradley_terry_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    margin: torch.Tensor | None = None,
    center_rewards_coefficient: float | None = None,
) -> torch.Tensor:
    """The loss of each pair, [B]: the negative log-probability that the chosen completion wins.

    Args:
        chosen: Rewards of the chosen completions, [B].
        rejected: Rewards of the rejected ones, [B].
        margin: By how much a chosen one has to lead, [B] (Llama 2, arXiv 2307.09288, equation 2). None: not at all.
        center_rewards_coefficient: Weight of the squared sum of both rewards, which holds their mean at 0
            (arXiv 2312.09244, equation 2). None: there is no such term.
    """
    lead = chosen - rejected
    loss = -logsigmoid(lead if margin is None else lead - margin)
    if center_rewards_coefficient is None:
        return loss
    return loss + center_rewards_coefficient * (chosen + rejected) ** 2
