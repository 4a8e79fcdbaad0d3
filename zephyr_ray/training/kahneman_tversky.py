"""The loss of Kahneman-Tversky optimization (KTO, arXiv 2402.01306) as a function of log-probabilities.

Of a prompt x with a completion y that is desirable (D) or undesirable (U), section 4.1:

    r(x, y) = log( pi(y|x) / pi_ref(y|x) )        z0 = KL( pi(y'|x) || pi_ref(y'|x) )
    v(x, y) = lambda_D sigmoid( beta (r - z0) )   of a desirable completion
              lambda_U sigmoid( beta (z0 - r) )   of an undesirable one
    L = E[ lambda_y - v(x, y) ]

z0 is estimated from completions of other prompts, is at least 0, and has no gradient. With z0 = 0 it is the unpaired
form of APO-zero (arXiv 2408.06266, equation 7), which TRL calls `apo_zero_unpaired`. Log-probs are in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kto_loss(
    log_ratios: Tensor, desirable: Tensor, kl: Tensor, beta: float, desirable_weight: float, undesirable_weight: float
) -> Tensor:
    """lambda_y - v of B completions, [B].

    Args:
        log_ratios: [B], r.
        desirable: bool [B].
        kl: [], z0.
        beta: How quickly the value of a gain, or of a loss, is saturated.
        desirable_weight: lambda_D.
        undesirable_weight: lambda_U.
    """
    ahead = beta * (log_ratios - kl)
    of_desirable, of_undesirable = torch.sigmoid(-ahead), torch.sigmoid(ahead)
    return torch.where(desirable, desirable_weight * of_desirable, undesirable_weight * of_undesirable)
