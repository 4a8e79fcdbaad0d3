"""A log's metrics of micro-batches, steps and ranks, worked out by hand; and what TRL computes them with."""

import math
from types import SimpleNamespace

import pytest
import torch

from zephyr_ray.training.packed_metrics import Metrics, token_weights, unread


def numbers(**values: float) -> dict[str, torch.Tensor]:
    return {name: unread(torch.tensor(value)) for name, value in values.items()}


def weights(pairs: int, tokens: int) -> dict[str, int]:
    return {**token_weights(tokens), "pairs": pairs}


def test_steps_are_means_over_micro_batches_and_ranks() -> None:
    """Two ranks, two steps. In the second the other rank has a filler alone, and only it tells the entropy."""
    ours, theirs = (Metrics(torch.device("cpu")) for _ in range(2))
    ours.add_step([numbers(margin=1.0), numbers(margin=4.0)], [weights(3, 30), weights(1, 10)], tokens=40)
    theirs.add_step([numbers(margin=2.0), numbers(margin=0.5)], [weights(2, 20), weights(2, 20)], tokens=50)
    ours.add_step([numbers(margin=6.0, entropy=3.0)], [weights(1, 8)], tokens=9)
    theirs.add_step([numbers(margin=math.nan, entropy=math.nan)], [weights(0, 0)], tokens=0)
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
    sums, count = unread(torch.tensor(0.0)), unread(torch.tensor(0))
    mean = (sums / count).item() if count > 0 else 0.0
    metrics.add_step([{"entropy": mean}], [weights(0, 0)], tokens=0)
    assert metrics.over_ranks(SimpleNamespace(reduce=lambda table, reduction: table)) == ({"entropy": [0.0]}, 0)


def test_what_trl_reads_stays_where_it_is() -> None:
    values = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    mask = torch.tensor([True, False, True])
    found = unread(values)[mask].sum().item()
    assert isinstance(found, torch.Tensor)
    assert not found.requires_grad
    assert float(found.as_subclass(torch.Tensor)) == 5.0
    assert unread(values)[1:].tolist() == [2.0, 4.0]
