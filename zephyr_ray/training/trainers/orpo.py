"""The trainer of odds ratio preference optimization (arXiv 2403.07691), on packed pairs without a reference."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from zephyr_ray.training.odds_ratio import odds_ratio_loss
from zephyr_ray.training.packed.layout import (
    PackedRow,
    by_completion,
    completion_mask,
    scoring_prompts,
)
from zephyr_ray.training.packed.metrics import sum_of
from zephyr_ray.training.trainers.pairs import PackedPairsTrainer, metrics_of


class PackedORPOTrainer(PackedPairsTrainer):
    """ORPO on packed rows: the mean of -log p over the step's learnt tokens, and lambda times the mean of the odds
    ratio's loss over the step's pairs, both over all workers."""

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().collate(rows)
        if self.section.nll_on == "all":
            batch["packed_row"] = scoring_prompts(batch["packed_row"])
        return batch

    def items_in_step(self, micro_batches: list[dict[str, Any]]) -> torch.Tensor:
        learnt = sum(learnt_tokens(each["packed_row"]) for each in micro_batches if each["loss_scale"] > 0)
        mine = torch.full((), learnt, device=self.accelerator.device)
        return self.accelerator.reduce(mine, reduction="sum")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row, scale = inputs["packed_row"], self._take_slots(inputs)
        output = self.forward(model, row)
        nll, learnt = -(output.log_probs[0] * is_learnt(row)).sum(), learnt_tokens(row)
        row, output = without_prompts(row, output)
        means = by_completion(row, output.log_probs).sum(-1) / completion_mask(row).sum(-1).clamp(min=1)
        penalty, ratio = odds_ratio_loss(means)
        found = metrics_of(row, output, pair_metrics(means.detach(), ratio.detach(), self.section.beta))
        self.note(found | {"nll_loss": sum_of(nll, learnt)}, scale)
        # Gradients are averaged over workers.
        share = (scale > 0) * self.accelerator.num_processes / num_items_in_batch.clamp(min=1)
        return nll * share + self.with_auxiliary(self.section.beta * penalty.mean(), output) * scale


def completion_tokens(row: PackedRow) -> int:
    """How many of a row's targets are completions': the first ones."""
    return sum(row.branch_lengths)


def learnt_tokens(row: PackedRow) -> int:
    """How many of a row's targets SFT's loss learns: those of the chosen completions, and of prompts where they are
    scored."""
    return sum(row.branch_lengths[::2]) + row.targets.numel() - completion_tokens(row)


def is_learnt(row: PackedRow) -> torch.Tensor:
    """Which they are (bool [C])."""
    return (row.branch % 2 == 0) | (row.branch < 0)


def without_prompts(row: PackedRow, output: Any) -> tuple[PackedRow, Any]:
    """The row and the head's fields, each [1, C], of the completions alone."""
    kept = completion_tokens(row)
    if kept == row.targets.numel():
        return row, output
    found = {name: value[:, :kept] for name, value in output.items() if value.shape == row.targets.shape}
    return row.scoring(slice(kept)), dataclasses.replace(output, **found)


def pair_metrics(means: torch.Tensor, ratio: torch.Tensor, beta: float) -> dict[str, torch.Tensor]:
    """What is logged of each pair, [B], of mean log-probs [2, B] and the log odds ratio [B], under TRL's names."""
    chosen, rejected = beta * means
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "logps/chosen": means[0],
        "logps/rejected": means[1],
        "log_odds_chosen": ratio,
        "log_odds_ratio": torch.nn.functional.logsigmoid(ratio),
    }
