"""The loss of odds ratio preference optimization (ORPO, arXiv 2403.07691) as functions of log-probabilities.

For a prompt x with a chosen completion y_w and a rejected one y_l (equations 3 to 7):

    P(y|x) = (product of the tokens' probabilities) ** (1 / |y|)        odds(y|x) = P(y|x) / (1 - P(y|x))
    L = L_SFT - lambda E[ log sigmoid( log( odds(y_w|x) / odds(y_l|x) ) ) ]

L_SFT is the mean of -log p over the tokens that are learnt. There is no reference model. Log-probs are in nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

CERTAIN = -1e-7
"""The largest mean log-prob that odds are computed of. Beyond it a float32 probability is 1, and its odds infinite."""


def log_odds(mean_log_probs: Tensor) -> Tensor:
    """log(P / (1 - P)) of log P, each at most 0: of any shape, in float32.

    log(1 - P) is log(-expm1(log P)) where P is over a half and log1p(-P) elsewhere, as one of them loses all digits
    where the other is exact (Maechler, Accurately computing log(1 - exp(-|a|)), 2012).
    """
    mean = mean_log_probs.float().clamp(max=CERTAIN)
    near, far = mean > -math.log(2), mean <= -math.log(2)
    # Each branch gets numbers that it is exact for: a gradient of inf times 0 would be NaN.
    of_near = torch.log(-torch.expm1(mean.where(near, torch.full_like(mean, -math.log(2)))))
    of_far = torch.log1p(-torch.exp(mean.where(far, torch.full_like(mean, -1.0))))
    return mean - torch.where(near, of_near, of_far)


def odds_ratio_loss(mean_log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """-log sigmoid(log odds ratio) and the log odds ratio, [B] each, of mean log-probs by token [2, B], the chosen
    completions first (equation 6, without lambda)."""
    ratio = torch.sub(*log_odds(mean_log_probs))
    return -logsigmoid(ratio), ratio
