"""The trainers of direct preference optimization (arXiv 2305.18290), on pairs whose reference log-probs are columns.

Packed rows have the loss of `losses.py`. Padded batches have TRL's, which is the oracle that ours is tested against.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.losses import PreferenceLoss, compare, preference_loss, reward_metrics
from zephyr_ray.training.packed.attention import Backend
from zephyr_ray.training.packed.layout import PackedRow, by_completion, completion_mask
from zephyr_ray.training.reference_guard import FirstStep, check_no_dropout
from zephyr_ray.training.sampler import RankPlan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trainers.pairs import REFERENCES, Learnt, PackedPairsTrainer, PlannedPairsTrainer


class PlannedDPOTrainer(PlannedPairsTrainer):
    """TRL's DPO with the plan's rows, on padded batches and with TRL's loss."""

    def follow(self, rows: Rows, rank_plan: RankPlan | PackedRankPlan) -> None:
        super().follow(rows, rank_plan)
        assert self.model is not None
        check_no_dropout(self.model)
        self.first_step = FirstStep()
        self.accelerator.gather = _gather_uneven(self.accelerator)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        scale = self._take_slots(inputs)
        if scale > 0 and self.state.global_step == 0:
            model = self.first_step.watched(model, inputs, self.ld_alpha)
        return super().compute_loss(model, inputs) * scale


class PackedDPOTrainer(PackedPairsTrainer, PlannedDPOTrainer):
    """DPO on packed rows: the mean loss over the step's pairs over all workers."""

    def follow(
        self, rows: Rows, rank_plan: RankPlan | PackedRankPlan, backend: Backend = "sdpa", align: int = 1
    ) -> None:
        super().follow(rows, rank_plan, backend, align)
        self.loss = loss_of(self.args)

    def loss_reads(self) -> tuple[str, ...]:
        return ("log_probs", "log_sum_sq_probs") if self.use_weighting else ("log_probs",)

    def learn(self, row: PackedRow, output: Any, inputs: dict[str, Any], scale: float) -> Learnt:
        log_sum_sq = by_completion(row, output.log_sum_sq_probs) if self.use_weighting else None
        reference = torch.stack([inputs[name] for name in REFERENCES])
        pairs = compare(self.loss, by_completion(row, output.log_probs), completion_mask(row), reference, log_sum_sq)
        if scale > 0 and self.state.global_step == 0:
            self.first_step.add(pairs.policy, pairs.reference, pairs.tokens)
        return Learnt(preference_loss(self.loss, pairs), reward_metrics(pairs))


def loss_of(args: Any) -> PreferenceLoss:
    """The loss that a DPOConfig of TRL's asks for."""
    return PreferenceLoss(**{field.name: getattr(args, field.name) for field in dataclasses.fields(PreferenceLoss)})


def _gather_uneven(accelerator: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """`accelerator.gather` where ranks hold different numbers of values.

    TRL gathers one value per pair for its metrics. In the last step of an epoch the pairs may not divide by the number
    of ranks, and gloo and NCCL gather equal sizes only.
    """
    gather = accelerator.gather

    def gather_uneven(values: torch.Tensor) -> torch.Tensor:
        if values.dim() == 0 or accelerator.num_processes == 1:
            return gather(values)
        size = torch.tensor([values.shape[0]], device=values.device)
        sizes = gather(size).tolist()
        padded = values.new_zeros(max(sizes), *values.shape[1:])
        padded[: values.shape[0]] = values
        parts = gather(padded).split(max(sizes))
        return torch.cat([part[:count] for part, count in zip(parts, sizes, strict=True)])

    return gather_uneven
