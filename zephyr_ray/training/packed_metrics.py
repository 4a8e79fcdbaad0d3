"""Reads TRL's metrics of each micro-batch -> those of the optimizer step, whatever way its pairs were packed.

TRL averages what it logs over micro-batches. Packed ones hold different numbers of pairs and tokens, so that the same
step would be logged differently for each token budget and number of workers. Here a metric counts as often as what it
is a mean of: a step is logged as TRL logs one batch that holds all of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from zephyr_ray.training.packed_layout import PackedRow

# What a metric of TRL's is a mean of; all others are means over pairs.
_MEAN_OF = {
    "entropy": "tokens",
    "logits/chosen": "chosen_tokens",
    "mean_token_accuracy": "chosen_tokens",
    "logits/rejected": "rejected_tokens",
}


def pair_weights(row: PackedRow, counts: bool) -> dict[str, int]:
    """How many pairs and completion tokens a micro-batch has; none where it is a filler that does not count."""
    chosen, rejected = sum(row.branch_lengths[::2]), sum(row.branch_lengths[1::2])
    found = {
        "pairs": len(row.branch_lengths) // 2,
        "tokens": chosen + rejected,
        "chosen_tokens": chosen,
        "rejected_tokens": rejected,
    }
    return {name: value * counts for name, value in found.items()}


def token_weights(tokens: int) -> dict[str, int]:
    """The same where every metric is a mean over learnt tokens, as in SFT."""
    return dict.fromkeys(("pairs", "tokens", "chosen_tokens", "rejected_tokens"), tokens)


class StepMeans:
    """Weighted means over a step's micro-batches and ranks."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, metrics: Mapping[str, list[float]], weight: Mapping[str, int]) -> None:
        """Takes a micro-batch's metrics: one value each, of this rank alone."""
        for name, (value,) in metrics.items():
            part = weight[_MEAN_OF.get(name, "pairs")]
            total = self.sums.setdefault(name, [0.0, 0.0])
            total[0] += value * part if part else 0.0
            total[1] += part

    def over_ranks(self, accelerator: Any) -> dict[str, float]:
        """The step's means, by name. One collective for all of them."""
        names = sorted(self.sums)
        table = torch.tensor([self.sums[name] for name in names], dtype=torch.float64, device=accelerator.device)
        total = accelerator.reduce(table, reduction="sum").tolist()
        return {name: value / part if part else 0.0 for name, (value, part) in zip(names, total, strict=True)}


@contextlib.contextmanager
def of_this_rank(accelerator: Any) -> Iterator[None]:
    """TRL gathers a dozen numbers per micro-batch; inside, it gets this rank's, which `StepMeans` joins once a step."""
    before = accelerator.gather, accelerator.gather_for_metrics
    accelerator.gather = accelerator.gather_for_metrics = lambda values: values
    try:
        yield
    finally:
        accelerator.gather, accelerator.gather_for_metrics = before
