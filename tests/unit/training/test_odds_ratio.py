"""ORPO's loss by hand, against exact arithmetic, and where a probability is nearly 1 or 0."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch

from zephyr_ray.training.odds_ratio import CERTAIN, log_odds, odds_ratio_loss


def test_by_hand() -> None:
    """P = 3/4 has odds of 3 and P = 1/4 of 1/3: a ratio of 9."""
    means = torch.log(torch.tensor([[3 / 4, 1 / 2], [1 / 4, 1 / 2]]))
    loss, ratio = odds_ratio_loss(means)
    assert ratio.tolist() == pytest.approx([math.log(9), 0.0], abs=1e-6)
    assert loss.tolist() == pytest.approx([-math.log(9 / 10), math.log(2)])


def exact(mean: float) -> float:
    with localcontext() as context:
        context.prec = 60
        probability = Decimal(mean).exp()
        return float(Decimal(mean) - (1 - probability).ln())


@pytest.mark.parametrize("mean", [CERTAIN, -1e-5, -1e-3, -0.1, -0.6931, -0.6932, -1.0, -10.0, -90.0, -300.0])
def test_it_keeps_its_digits_from_certain_to_impossible(mean: float) -> None:
    given = torch.tensor([mean], requires_grad=True)
    odds = log_odds(given)
    odds.sum().backward()
    rounded = float(given.detach())
    assert given.grad is not None
    assert odds.item() == pytest.approx(exact(rounded), rel=1e-5, abs=1e-7)
    assert given.grad.item() == pytest.approx(1 / -math.expm1(rounded), rel=1e-5)  # d/dx (x - log(1 - e^x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_completion_that_is_certain_has_a_finite_loss_and_gradient(dtype: torch.dtype) -> None:
    """Where every token has a probability of 1 in float32, the odds are infinite; they count as those of 1 - 1e-7."""
    means = torch.tensor([[0.0, -1e-9, -5.0], [-2.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    loss, ratio = odds_ratio_loss(means)
    loss.sum().backward()
    assert means.grad is not None
    assert torch.isfinite(torch.cat([loss, ratio, means.grad.float().flatten()])).all()
    assert ratio[1].item() == 0
    assert loss[2] > 10 > loss[0]
