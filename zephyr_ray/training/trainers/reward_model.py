"""The trainer of a reward model, on packed pairs: TRL's on the plan's rows, with each prompt computed once."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from trl import RewardTrainer

from zephyr_ray.training.bradley_terry import bradley_terry_loss
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.packed.attention import Backend, row_multiple
from zephyr_ray.training.packed.metrics import sum_of
from zephyr_ray.training.packed.rewards import add_packed_rewards, branch_ends
from zephyr_ray.training.packed.steps import PackedSteps
from zephyr_ray.training.reward_head import set_padding, whole_ending, with_ending
from zephyr_ray.training.sampler import RankPlan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trainers.pairs import collate_packed
from zephyr_ray.training.trl_trainers import PlannedMixin

_COMPLETIONS = ("chosen_ids", "rejected_ids")


class PackedRewardTrainer(PackedSteps, PlannedMixin, RewardTrainer):
    """Bradley-Terry on packed rows: the mean loss over the step's pairs over all workers."""

    loss_is_scaled_for_ga = True
    aux_loss_enabled = False  # of a mixture of experts, in TRL's trainer too
    router_aux_loss_coef = 0.0

    def __init__(self, **kwargs: Any):
        processing_class = kwargs["processing_class"]
        set_padding(processing_class)
        super().__init__(**kwargs)
        self.ending, self.eos = whole_ending(processing_class), processing_class.eos_token_id

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # tokenized by the `tokenized` stage

    def follow(
        self, rows: Rows, rank_plan: RankPlan | PackedRankPlan, backend: Backend = "sdpa", align: int = 1
    ) -> None:
        assert isinstance(rank_plan, PackedRankPlan)
        longer = rank_plan.lengths + 2 * len(self.ending)
        super().follow(rows, dataclasses.replace(rank_plan, lengths=longer), backend, align)

    def add_forward(self, model: Any) -> None:
        add_packed_rewards(model, self.backend)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """A micro-batch: its pairs in one row, where their completions end, and their margins [B] where they have any;
        and as `pairs.collate_packed`."""
        pairs = [row | {name: with_ending(row[name], self.eos, self.ending) for name in _COMPLETIONS} for row in rows]
        batch = collate_packed(pairs, row_multiple(self.backend), self.align)
        margins = {"margin": torch.tensor([each["margin"] for each in rows])} if "margin" in rows[0] else {}
        return {**batch, "ends": branch_ends(batch["packed_row"]), **margins}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row, scale = inputs["packed_row"], self._take_slots(inputs)
        rewards = model(packed_row=row, ends=inputs["ends"]).float()
        chosen, rejected = rewards.view(-1, 2).T
        losses = bradley_terry_loss(chosen, rejected, inputs.get("margin"), self.args.center_rewards_coefficient)
        found = {"mean_reward": rewards.view(-1, 2).mean(1), "accuracy": chosen > rejected, "margin": chosen - rejected}
        self.note({name: sum_of(values, len(chosen)) for name, values in found.items()}, scale)
        return losses.mean() * scale
