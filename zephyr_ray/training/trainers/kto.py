"""The trainer of Kahneman-Tversky optimization (arXiv 2402.01306), on packed completions with labels.

A step has one estimate of the KL term, over all of its rows on all workers. It comes first, without a gradient, from
each row's prompt with the completion of the row before it in the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from trl import KTOTrainer

from zephyr_ray.training.dataset import Rows, UnpairedRows
from zephyr_ray.training.kahneman_tversky import kto_loss
from zephyr_ray.training.packed.attention import Backend, row_multiple
from zephyr_ray.training.packed.layout import PackedRow, by_branch, pack
from zephyr_ray.training.packed.metrics import Sum, sum_of
from zephyr_ray.training.packed.steps import PackedSteps
from zephyr_ray.training.reference_guard import FirstStep, check_no_dropout
from zephyr_ray.training.sampler import RankPlan, Slot, partners
from zephyr_ray.training.token_batching import PackedRankPlan, rounded_up
from zephyr_ray.training.trainers.pairs import no_weight_is_hashed
from zephyr_ray.training.trl_trainers import PlannedMixin, plan_of


@dataclass(frozen=True)
class MeetingRankPlan(PackedRankPlan):
    """As its base, where a row's tokens differ by epoch.

    Attributes:
        by_epoch: Tokens of each row (int64 [epochs, rows]).
    """

    by_epoch: np.ndarray | None = None

    def step(self, step: int) -> list[list[Slot]]:
        assert self.by_epoch is not None
        epoch = step // self.plan.steps_per_epoch
        this = PackedRankPlan(self.plan, self.rank, self.world_size, self.by_epoch[epoch], self.budget)
        return [[slot._replace(epoch=epoch) for slot in part] for part in this.step(step)]


class PackedKTOTrainer(PackedSteps, PlannedMixin, KTOTrainer):
    """KTO on packed rows: the mean loss over the step's completions over all workers."""

    loss_is_scaled_for_ga = True
    kl: torch.Tensor
    """[], the estimate of the step that runs."""
    shares: torch.Tensor
    """[2], 1 over the share of the step's completions that are desirable, and that are not."""

    def __init__(self, *args: Any, **kwargs: Any):
        with no_weight_is_hashed():
            super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # tokenized by the stage `tokenized_unpaired`

    def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # computed by the stage `unpaired_reference_logps`

    def follow(
        self, rows: Rows, rank_plan: RankPlan | PackedRankPlan, backend: Backend = "sdpa", align: int = 1
    ) -> None:
        assert isinstance(rows, UnpairedRows)
        assert isinstance(rank_plan, PackedRankPlan)
        if self.calculate_KL:
            rows.partners = partners(rank_plan.plan)
            lengths = rounded_up(rows.lengths_with_partners(), align)
            plan, rank, world_size, budget = rank_plan.plan, rank_plan.rank, rank_plan.world_size, rank_plan.budget
            rank_plan = MeetingRankPlan(plan, rank, world_size, rank_plan.lengths, budget, by_epoch=lengths)
        super().follow(rows, rank_plan, backend, align)
        check_no_dropout(self.model, "kto")
        self.first_step = FirstStep()

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate_unpaired(rows, row_multiple(self.backend), self.align)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self._estimate(model, inputs["micro_batches"])
        return super().training_step(model, inputs, num_items_in_batch)

    @torch.no_grad()
    def _estimate(self, model: Any, micro_batches: list[dict[str, Any]]) -> None:
        """Sets `kl` and `shares` from this rank's micro-batches and those of all others."""
        sums = torch.zeros(3, device=self.accelerator.device)
        for batch in micro_batches:
            is_row = float(batch["loss_scale"] > 0)  # a filler keeps the ranks in step, and counts nothing
            if self.calculate_KL:
                row, reference = (self._prepare_input(batch.pop(name)) for name in ("kl_row", "ref_kl_logps"))
                log_probs = by_branch(row, model(packed_row=row, lean=True).log_probs).sum(-1)
                sums[0] += is_row * (log_probs - reference).sum()
            sums[1:] += is_row * torch.tensor(batch["rows"], device=sums.device)
        log_ratio, *rows = self.accelerator.reduce(sums, reduction="sum")
        counts = torch.stack(rows)
        self.kl = (log_ratio / counts.sum()).clamp(min=0)
        self.shares = counts.sum() / counts.clamp(min=1)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row, scale, desirable = inputs["packed_row"], self._take_slots(inputs), inputs["desirable"]
        output = self.forward(model, row)
        log_probs = by_branch(row, output.log_probs).sum(-1)
        if scale > 0 and self.state.global_step == 0:
            tokens = torch.tensor(row.branch_lengths, device=desirable.device)
            policy, reference = (values.expand(2, -1) for values in (log_probs, inputs["ref_logps"]))
            self.first_step.add(policy, reference, tokens * torch.stack([desirable, ~desirable]))
        section, ratios = self.section, log_probs - inputs["ref_logps"]
        weights = section.desirable_weight, section.undesirable_weight
        losses = kto_loss(ratios, desirable, self.kl, section.beta, *weights)
        rewards = section.beta * ratios.detach()
        margins = rewards * torch.where(desirable, self.shares[0], -self.shares[1])
        found = metrics_of(row, output, inputs, rewards, log_probs)
        of_step = {"rewards/margins": margins, "kl": self.kl.expand(len(rewards))}
        self.note(found | {name: sum_of(each, len(rewards)) for name, each in of_step.items()}, scale)
        return self.with_auxiliary(losses.mean(), output) * scale


def collate_unpaired(rows: list[dict[str, Any]], multiple: int = 1, align: int = 1) -> dict[str, Any]:
    """A micro-batch of B completions.

    Returns:
        packed_row: The completions, each behind its prompt, in one row.
        desirable: bool [B].
        ref_logps: float32 [B], the reference's log-probs.
        kl_row, ref_kl_logps: The same of the completions that the prompts meet, where they meet any.
        rows, tokens: Of completions that are desirable, and that are not: how many, and their tokens; plain numbers.
        num_tokens: Those of prompts and completions; 0 of a filler.
    And what the plan says of it.
    """
    plan, prompts, labels = plan_of(rows), [row["prompt_ids"] for row in rows], [row["label"] for row in rows]
    sizes = [len(row["completion_ids"]) for row in rows]
    batch = {
        "packed_row": pack(prompts, [(row["completion_ids"],) for row in rows], multiple, align),
        "desirable": torch.tensor(labels),
        "ref_logps": torch.tensor([row["ref_logps"] for row in rows]),
        "rows": [sum(label is side for label in labels) for side in (True, False)],
        "tokens": [sum(n for n, label in zip(sizes, labels, strict=True) if label is side) for side in (True, False)],
        "num_tokens": sum(sizes) + sum(map(len, prompts)) if plan["loss_scale"] > 0 else 0,
        **plan,
    }
    if "kl_ids" in rows[0]:
        batch["kl_row"] = pack(prompts, [(row["kl_ids"],) for row in rows], multiple, align)
        batch["ref_kl_logps"] = torch.tensor([row["ref_kl_logps"] for row in rows])
    return batch


def metrics_of(
    row: PackedRow, output: Any, inputs: dict[str, Any], rewards: torch.Tensor, log_probs: torch.Tensor
) -> dict[str, Sum]:
    """The metrics of a row under TRL's names, in which desirable completions are the chosen ones: means over
    completions, and those of the head's fields over tokens."""
    desirable, rows, tokens = inputs["desirable"], inputs["rows"], inputs["tokens"]
    found = {}
    for number, (side, is_side) in enumerate((("chosen", desirable), ("rejected", ~desirable))):
        found[f"rewards/{side}"] = sum_of(rewards * is_side, rows[number])
        found[f"logps/{side}"] = sum_of(log_probs * is_side, rows[number])
        if output.entropy is not None:
            found[f"logits/{side}"] = sum_of(output.mean_logits * is_side[row.branch], tokens[number])
    if output.entropy is not None:
        found["entropy"] = sum_of(output.entropy, sum(tokens))
    if output.aux_loss is not None:
        found["aux_loss"] = sum_of(output.aux_loss * sum(rows), sum(rows))
    return found
