"""The metrics of an optimizer step, the same in whatever way its rows were packed.

TRL averages what it logs over micro-batches. Packed ones hold different numbers of pairs and tokens, so that the same
step would be logged differently for each token budget and number of workers. Here a metric is a sum and the number of
what it is a sum of: a step is logged as TRL logs one batch that holds all of it.

A GPU that is asked for a number stands idle until the next one is asked of it, so that none is before a log is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch


class Sum(NamedTuple):
    """A metric of a micro-batch."""

    total: torch.Tensor
    """A number on the device."""
    number: int
    """Of the pairs or tokens that it is a sum over."""


def sum_of(values: torch.Tensor, number: int) -> Sum:
    """The sum of values of any shape, without a gradient."""
    return Sum(values.detach().sum(dtype=torch.float32), number)


class Metrics:
    """The metrics of the steps since the last log: of each step the means over its micro-batches and ranks.

    Nothing is read back from the device, and ranks do not meet, before `over_ranks`.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.steps = 0
        self.tokens = 0
        """Of this rank, in these steps."""
        self.names: list[str] = []
        """Of each step's metrics, one step after the other."""
        self.sums: list[torch.Tensor] = []
        """In that order float64 [metrics, 2]: the sum over this rank's micro-batches, and how much it is a sum of."""

    def add_step(self, micro_batches: Sequence[Mapping[str, Sum]], tokens: int) -> None:
        """Takes the metrics of a step's micro-batches, which have the same names, and how many tokens are trained on.

        What counts nothing is left out, whatever its sum.
        """
        self.steps, self.tokens = self.steps + 1, self.tokens + tokens
        names = sorted(micro_batches[0])
        if not names:
            return
        counts = torch.tensor([[batch[name].number for name in names] for batch in micro_batches])
        counts = counts.to(self.device, torch.float64, non_blocking=True)
        totals = torch.stack([batch[name].total for batch in micro_batches for name in names]).view(counts.shape)
        sums = torch.where(counts > 0, totals.double(), 0.0)
        self.names += names
        self.sums.append(torch.stack([sums.sum(0), counts.sum(0)], dim=1))

    def over_ranks(self, accelerator: Any) -> tuple[dict[str, list[float]], int]:
        """The means of each step, by name, and the tokens of all steps; then there are none. One collective and one
        read-back for all of them."""
        tokens = torch.full((1, 2), self.tokens, dtype=torch.float64, device=self.device)
        *rows, (total, _) = accelerator.reduce(torch.cat([*self.sums, tokens]), reduction="sum").tolist()
        found: dict[str, list[float]] = defaultdict(list)
        for name, (value, part) in zip(self.names, rows, strict=True):
            found[name].append(value / part if part else 0.0)
        self.steps, self.tokens, self.names, self.sums = 0, 0, [], []
        return found, round(total)
