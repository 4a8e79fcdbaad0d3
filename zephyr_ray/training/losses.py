"""The DPO loss and its variants as functions of log-probabilities: tensors in, tensors out.

Direct preference optimization (Rafailov et al., arXiv 2305.18290), equation 7, for prompts x with a chosen completion
y_w and a rejected one y_l:

    L = -E[ log sigmoid( beta log(pi(y_w|x) / pi_ref(y_w|x)) - beta log(pi(y_l|x) / pi_ref(y_l|x)) ) ]

Variants and settings have the names that TRL 1.16 gives them, and TRL is the oracle that the tests compare them with.
None of them has a state. `aot`, `aot_unpaired` and `sft` depend on which pairs are computed together.

Log-probs are in nats, B is the number of pairs, L the number of tokens of the longest completion. Where a tensor's
first dimension is 2, the chosen completions come first, then the rejected ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class PreferenceLoss:
    """Which loss, under the names of TRL's DPOConfig. `loss_weights` has one for each loss type; None is 1 for all."""

    beta: float = 0.1
    loss_type: Sequence[str] = ("sigmoid",)
    loss_weights: Sequence[float] | None = None
    label_smoothing: float = 0.0
    f_divergence_type: str = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5
    discopop_tau: float = 0.05
    ld_alpha: float | None = None


class Pairs(NamedTuple):
    """What the losses read of B pairs."""

    policy: Tensor  # [2, B], log pi(y|x)
    reference: Tensor  # [2, B], log pi_ref(y|x)
    tokens: Tensor  # [2, B], of each completion
    rewards: Tensor  # [2, B], beta log(pi(y|x) / pi_ref(y|x))
    logit: Tensor  # [B], what equation 7 takes the sigmoid of
    mean_margin: Tensor  # [B], the chosen completion's score by token less the rejected one's
    nll: Tensor  # [], the mean of -log pi over the tokens of all chosen completions
    weight: Tensor | float  # [B], of each pair


def compare(
    loss: PreferenceLoss, log_probs: Tensor, mask: Tensor, reference: Tensor, log_sum_sq: Tensor | None = None
) -> Pairs:
    """The pairs of a batch.

    Args:
        log_probs: [2, B, L], the policy's, of each token; 0 off the mask.
        mask: bool [2, B, L], where a completion has a token.
        reference: [2, B], the reference's sums.
        log_sum_sq: [2, B, L], log(sum of pi^2 over the vocabulary) at each token, for WPO (arXiv 2406.11827) alone.
    """
    policy, tokens = completion_sums(log_probs, mask, loss.ld_alpha), mask.sum(-1)
    ratios = policy - reference
    scores = divergence_scores(loss, ratios)
    nll = -log_probs[0].sum() / tokens[0].sum().clamp(min=1)
    weight: Tensor | float = 1.0
    if log_sum_sq is not None:  # equation 2: how likely the policy itself is to write both completions
        aligned = (log_probs.detach() - log_sum_sq) * mask
        weight = torch.exp(aligned.sum(-1) / tokens.clamp(min=1)).prod(0)
    logit, mean_margin = loss.beta * torch.sub(*scores), torch.sub(*(scores / tokens.clamp(min=1)))
    return Pairs(policy, reference, tokens, loss.beta * ratios, logit, mean_margin, nll, weight)


def preference_loss(loss: PreferenceLoss, pairs: Pairs) -> Tensor:
    """[], the mean over pairs, summed over the loss types with their weights."""
    weights = loss.loss_weights or [1.0] * len(loss.loss_type)
    means = [(LOSSES[name](loss, pairs) * pairs.weight).mean() for name in loss.loss_type]
    return torch.stack([weight * mean for weight, mean in zip(weights, means, strict=True)]).sum()


def reward_metrics(pairs: Pairs) -> dict[str, Tensor]:
    """What is logged of each pair, [B], without a gradient, under TRL's names: implicit rewards and log-probs."""
    (chosen, rejected), logps = pairs.rewards.detach(), pairs.policy.detach()
    found = {"rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": chosen - rejected}
    accuracies = (chosen > rejected).float()
    return found | {"rewards/accuracies": accuracies, "logps/chosen": logps[0], "logps/rejected": logps[1]}


def completion_sums(log_probs: Tensor, mask: Tensor, ld_alpha: float | None) -> Tensor:
    """[2, B], log pi(y|x), of log-probs [2, B, L] that are 0 off the mask. What a completion has beyond the length of
    the pair's shorter one counts `ld_alpha` (LD-DPO, arXiv 2409.06411); None is 1."""
    if ld_alpha is None:
        return log_probs.sum(-1)
    shared = mask.cumsum(-1) <= mask.sum(-1).amin(0)[:, None]
    return (log_probs * shared).sum(-1) + ld_alpha * (log_probs * ~shared).sum(-1)


def divergence_scores(loss: PreferenceLoss, ratios: Tensor) -> Tensor:
    """f'(pi / pi_ref) of log ratios, for the f-divergence of policy and reference (f-DPO, arXiv 2309.16240)."""
    power = loss.f_alpha_divergence_coef - 1
    match loss.f_divergence_type:
        case "forward_kl":
            return 1 - torch.exp(-ratios)
        case "js_divergence":
            return math.log(2) + logsigmoid(ratios)
        case "alpha_divergence" if abs(power) >= 1e-6:  # nearer to 0 it is the reverse KL
            return torch.expm1((power * ratios).float().clamp(max=80)).to(ratios.dtype) / power
        case "reverse_kl" | "alpha_divergence":
            return ratios
    raise ValueError(f"f_divergence_type={loss.f_divergence_type}")


def _smoothed(loss: PreferenceLoss, logit: Tensor, sign: float = 1.0) -> Tensor:
    share = loss.label_smoothing
    return -(1 - share) * logsigmoid(logit) - sign * share * logsigmoid(-logit)


def _exo(loss: PreferenceLoss, logit: Tensor) -> Tensor:
    right, wrong = math.log1p(-loss.label_smoothing), math.log(loss.label_smoothing)
    return logit.sigmoid() * (logsigmoid(logit) - right) + (-logit).sigmoid() * (logsigmoid(-logit) - wrong)


LOSSES: dict[str, Callable[[PreferenceLoss, Pairs], Tensor]] = {
    "sigmoid": lambda loss, p: -logsigmoid(p.logit),  # equation 7
    "sigmoid_norm": lambda loss, p: -logsigmoid(loss.beta * p.mean_margin),  # Tulu 3, arXiv 2411.15124, eq. 6
    "hinge": lambda loss, p: torch.relu(1 - p.logit),  # RSO, arXiv 2309.06657, and SLiC-HF, 2305.10425
    "ipo": lambda loss, p: (p.mean_margin - 0.5 / loss.beta) ** 2,  # arXiv 2310.12036, eq. 17, by token
    "robust": lambda loss, p: _smoothed(loss, p.logit, -1) / (1 - 2 * loss.label_smoothing),  # arXiv 2403.00409
    "exo_pair": lambda loss, p: _exo(loss, p.logit),  # arXiv 2402.00856, eq. 16
    "discopop": lambda loss, p: torch.lerp(  # arXiv 2406.08414, eq. 5
        -logsigmoid(p.logit), torch.exp(-p.logit), torch.sigmoid(p.logit / loss.discopop_tau)
    ),
    "nca_pair": lambda loss, p: -logsigmoid(p.rewards[0]) - 0.5 * logsigmoid(-p.rewards).sum(0),  # arXiv 2402.05369
    "bco_pair": lambda loss, p: -logsigmoid(p.rewards[0]) - logsigmoid(-p.rewards[1]),  # arXiv 2404.04656, unshifted
    "apo_zero": lambda loss, p: torch.sigmoid(-p.rewards[0]) + torch.sigmoid(p.rewards[1]),  # arXiv 2408.06266, eq. 7
    "apo_down": lambda loss, p: torch.sigmoid(p.rewards[0]) + torch.sigmoid(-torch.sub(*p.rewards)),  # eq. 8
    "sppo_hard": lambda loss, p: (  # arXiv 2405.00675, eq. 4.7 with probabilities 1 and 0
        ((p.rewards[0] - 0.5) ** 2 + (p.rewards[1] + 0.5) ** 2) / loss.beta**2
    ),
    "aot": lambda loss, p: _smoothed(  # arXiv 2406.05882: it compares distributions, so that both are sorted
        loss, loss.beta * (torch.sub(*p.policy).sort().values - torch.sub(*p.reference).sort().values)
    ),
    "aot_unpaired": lambda loss, p: _smoothed(loss, torch.sub(*p.rewards.sort().values)),
    "sft": lambda loss, p: p.nll.expand(p.logit.shape),  # for each pair the same (RPO, arXiv 2404.19733)
}
