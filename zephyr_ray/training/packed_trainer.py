"""DPO on packed rows: each prompt is computed once, without padding. The loss is `losses.preference_loss`."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from zephyr_ray.training.losses import Pairs, PreferenceLoss, compare, preference_loss, reward_metrics
from zephyr_ray.training.packed_attention import Backend, row_multiple
from zephyr_ray.training.packed_layout import PackedRow, by_completion, completion_mask, pack_pairs
from zephyr_ray.training.packed_metrics import Sum, sum_of
from zephyr_ray.training.packed_steps import PackedSteps
from zephyr_ray.training.packing import PackedRankPlan
from zephyr_ray.training.plan import RankPlan
from zephyr_ray.training.rows import Rows
from zephyr_ray.training.trainers import PlannedDPOTrainer, plan_of

_REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")


def collate_packed(pairs: list[dict[str, Any]], multiple: int = 1, align: int = 1) -> dict[str, Any]:
    """A micro-batch: its pairs in one row, and per pair the reference log-probs [B]; what the plan says of it and the
    number of its tokens, a prompt's twice, as plain numbers."""
    plan = plan_of(pairs)
    lengths = [2 * len(pair["prompt_ids"]) + len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs]
    references = {name: torch.tensor([pair[name] for pair in pairs]) for name in _REFERENCES}
    tokens = sum(lengths) if plan["loss_scale"] > 0 else 0
    return {"packed_row": pack_pairs(pairs, multiple, align), **references, "num_tokens": tokens, **plan}


def loss_of(args: Any) -> PreferenceLoss:
    """The loss that a DPOConfig of TRL's asks for."""
    return PreferenceLoss(**{field.name: getattr(args, field.name) for field in dataclasses.fields(PreferenceLoss)})


def packed_metrics(row: PackedRow, output: Any, pairs: Pairs) -> dict[str, Sum]:
    """The metrics of a row under TRL's names: means over pairs, and those of the head's fields over tokens."""
    count, lengths = len(row.branch_lengths) // 2, row.branch_lengths
    found = {name: sum_of(values, count) for name, values in reward_metrics(pairs).items()}
    if output.aux_loss is not None:
        found["aux_loss"] = sum_of(output.aux_loss * count, count)
    if output.entropy is None:
        return found
    is_chosen, chosen, rejected = row.branch % 2 == 0, sum(lengths[::2]), sum(lengths[1::2])
    return found | {
        "entropy": sum_of(output.entropy, chosen + rejected),
        "logits/chosen": sum_of(output.mean_logits * is_chosen, chosen),
        "logits/rejected": sum_of(output.mean_logits * ~is_chosen, rejected),
        "mean_token_accuracy": sum_of(output.is_top1 & is_chosen, chosen),
    }


class PackedDPOTrainer(PackedSteps, PlannedDPOTrainer):
    """TRL's DPO trainer with our own loss on packed rows."""

    def follow(
        self, rows: Rows, rank_plan: RankPlan | PackedRankPlan, backend: Backend = "sdpa", align: int = 1
    ) -> None:
        super().follow(rows, rank_plan, backend, align)
        self.loss = loss_of(self.args)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate_packed(rows, row_multiple(self.backend), self.align)

    def loss_reads(self) -> tuple[str, ...]:
        return ("log_probs", "log_sum_sq_probs") if self.use_weighting else ("log_probs",)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row, scale = inputs["packed_row"], self._take_slots(inputs)
        output = self.forward(model, row)
        log_sum_sq = by_completion(row, output.log_sum_sq_probs) if self.use_weighting else None
        reference = torch.stack([inputs[name] for name in _REFERENCES])
        pairs = compare(self.loss, by_completion(row, output.log_probs), completion_mask(row), reference, log_sum_sq)
        if scale > 0 and self.state.global_step == 0:
            self.first_step.add(pairs.policy, pairs.reference, pairs.tokens)
        self.note(packed_metrics(row, output, pairs), scale)
        loss = preference_loss(self.loss, pairs)
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * output.aux_loss
        return loss * scale
