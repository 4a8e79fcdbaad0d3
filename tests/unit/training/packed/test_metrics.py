"""A log's metrics of micro-batches, steps and ranks, worked out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from zephyr_ray.training.packed.metrics import Metrics, Sum, sum_of


def sums(pairs: int, tokens: int, **means: float) -> dict[str, Sum]:
    """A micro-batch's metrics, of which the entropy is a mean over tokens and the others over pairs."""
    numbers = {name: tokens if name == "entropy" else pairs for name in means}
    return {name: Sum(torch.tensor(mean * numbers[name]), numbers[name]) for name, mean in means.items()}


def test_steps_are_means_over_micro_batches_and_ranks() -> None:
    """Two ranks, two steps. In the second the other rank has a filler alone, and only it tells the entropy."""
    ours, theirs = (Metrics(torch.device("cpu")) for _ in range(2))
    ours.add_step([sums(3, 30, margin=1.0), sums(1, 10, margin=4.0)], tokens=40)
    theirs.add_step([sums(2, 20, margin=2.0), sums(2, 20, margin=0.5)], tokens=50)
    ours.add_step([sums(1, 8, margin=6.0, entropy=3.0)], tokens=9)
    theirs.add_step([sums(0, 0, margin=math.nan, entropy=math.nan)], tokens=0)
    tables: list[torch.Tensor] = []
    theirs.over_ranks(SimpleNamespace(reduce=lambda table, reduction: tables.append(table) or table))
    (table,) = tables
    means, tokens = ours.over_ranks(SimpleNamespace(reduce=lambda mine, reduction: mine + table))
    assert means == {"margin": pytest.approx([(3 * 1 + 1 * 4 + 2 * 2 + 2 * 0.5) / 8, 6]), "entropy": [3]}
    assert tokens == 99
    assert (ours.steps, ours.tokens, ours.sums) == (0, 0, [])


def test_a_metric_of_nothing_is_zero() -> None:
    """As TRL's of a batch without tokens, which divides by none."""
    metrics = Metrics(torch.device("cpu"))
    metrics.add_step([{"entropy": sum_of(torch.zeros(1, 0), 0)}], tokens=0)
    assert metrics.over_ranks(SimpleNamespace(reduce=lambda table, reduction: table)) == ({"entropy": [0.0]}, 0)


def test_a_sum_stays_where_it_is_and_has_no_gradient() -> None:
    found = sum_of(torch.tensor([[1.0, 4.0]], requires_grad=True), 2)
    assert not found.total.requires_grad
    assert (float(found.total), found.number) == (5.0, 2)
    assert float(sum_of(torch.tensor([True, False, True]), 3).total) == 2.0
