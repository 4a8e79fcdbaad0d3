"""Reads TRL's metrics of each micro-batch -> those of the optimizer step, whatever way its pairs were packed.

TRL averages what it logs over micro-batches. Packed ones hold different numbers of pairs and tokens, so that the same
step would be logged differently for each token budget and number of workers. Here a metric counts as often as what it
is a mean of: a step is logged as TRL logs one batch that holds all of it.

A GPU that is asked for a number stands idle until the next one is asked of it, so that none is before a log is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from trl.trainer.utils import FusedCausalLMOutput

from zephyr_ray.training.packed_layout import PackedRow

# What a metric of TRL's is a mean of; all others are means over pairs. Those over tokens are of the head's fields that
# the loss does not read.
_MEAN_OF = {
    "entropy": "tokens",
    "logits/chosen": "chosen_tokens",
    "mean_token_accuracy": "chosen_tokens",
    "logits/rejected": "rejected_tokens",
}
OF_THE_HEAD = frozenset(_MEAN_OF)
_FOR_METRICS = ("entropy", "mean_logits", "is_top1")
"""The fields of the head that only these metrics read."""


def pair_weights(row: PackedRow) -> dict[str, int]:
    """How many pairs and completion tokens a micro-batch has."""
    chosen, rejected = sum(row.branch_lengths[::2]), sum(row.branch_lengths[1::2])
    return {
        "pairs": len(row.branch_lengths) // 2,
        "tokens": chosen + rejected,
        "chosen_tokens": chosen,
        "rejected_tokens": rejected,
    }


def token_weights(tokens: int) -> dict[str, int]:
    """The same where every metric is a mean over learnt tokens, as in SFT."""
    return dict.fromkeys(("pairs", "tokens", "chosen_tokens", "rejected_tokens"), tokens)


class Unread(torch.Tensor):
    """A number on the device. TRL reads each of its metrics as it computes it, a dozen for each micro-batch, and a GPU
    would stand idle after each; it is given these, and `Metrics` reads all at once when they are logged.

    `item()` is the number itself. As a condition it is true: TRL only asks whether there are tokens before it divides
    by them, and what is a mean of none counts nothing in `Metrics`. With a mask as its index it keeps its shape, with
    zeros off the mask: TRL only takes the sum.
    """

    def item(self) -> Unread:  # type: ignore[override]
        return self

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> torch.Tensor:
        if isinstance(index, torch.Tensor) and index.dtype == torch.bool:
            return torch.where(index, self, 0)
        return super().__getitem__(index)


def unread(values: torch.Tensor) -> Unread:
    """The same values for metrics alone, without a gradient."""
    return values.detach().as_subclass(Unread)


def for_metrics(output: FusedCausalLMOutput) -> FusedCausalLMOutput:
    """A model's output in which TRL's metrics read nothing back, with zeros for those fields that were not computed."""
    assert output.log_probs is not None
    none = torch.zeros((), dtype=torch.bool, device=output.log_probs.device).expand(output.log_probs.shape)
    found = {name: getattr(output, name) for name in _FOR_METRICS}
    return dataclasses.replace(
        output, **{name: unread(none if values is None else values) for name, values in found.items()}
    )


@contextlib.contextmanager
def of_this_rank(accelerator: Any) -> Iterator[None]:
    """TRL gathers a dozen numbers per micro-batch; inside, it gets this rank's, which `Metrics` joins once a log."""
    before = accelerator.gather, accelerator.gather_for_metrics
    accelerator.gather = accelerator.gather_for_metrics = unread
    try:
        yield
    finally:
        accelerator.gather, accelerator.gather_for_metrics = before


class Metrics:
    """The metrics of the steps since the last log: of each step the weighted means over its micro-batches and ranks.

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

    def add_step(
        self,
        micro_batches: Sequence[Mapping[str, torch.Tensor]],
        weights: Sequence[Mapping[str, int]],
        tokens: int,
    ) -> None:
        """Takes a step's metrics, a number (on the device) for each micro-batch, what they count, and how many tokens
        are trained on."""
        self.steps, self.tokens = self.steps + 1, self.tokens + tokens
        names = sorted(micro_batches[0])
        if not names:
            return
        parts = torch.tensor([[weight[_MEAN_OF.get(name, "pairs")] for name in names] for weight in weights])
        parts = parts.to(self.device, torch.float64, non_blocking=True)
        values = torch.stack([batch[name].as_subclass(torch.Tensor) for batch in micro_batches for name in names])
        sums = torch.where(parts > 0, values.view(parts.shape) * parts, 0.0)
        self.names += names
        self.sums.append(torch.stack([sums.sum(0), parts.sum(0)], dim=1))

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
