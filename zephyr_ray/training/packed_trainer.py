"""TRL's DPO trainer on packed rows: its loss and its metrics unchanged.

TRL's loss calls the model on a padded batch of pairs and reads a few numbers per completion token. Here it calls a
function instead, which computes them on the packed row and puts them where TRL looks for them.
"""

from __future__ import annotations

from typing import Any

import torch

from zephyr_ray.training.packed_layout import PackedRow, pack
from zephyr_ray.training.packed_logps import PairGrid, routing
from zephyr_ray.training.packed_metrics import of_this_rank, pair_weights
from zephyr_ray.training.packed_steps import PackedSteps, counts
from zephyr_ray.training.trainers import PlannedDPOTrainer


def collate_packed(pairs: list[dict[str, Any]], multiple: int = 1, align: int = 1) -> dict[str, Any]:
    """A micro-batch: its pairs in one row, and per pair the reference log-probs [B] and the plan's columns [B]."""
    columns = ("ref_chosen_logps", "ref_rejected_logps", "loss_scale", "row")
    return {"packed_row": pack_pairs(pairs, multiple, align)} | {
        name: torch.tensor([pair[name] for pair in pairs]) for name in columns
    }


def pack_pairs(pairs: list[dict[str, Any]], multiple: int = 1, align: int = 1) -> PackedRow:
    """Pairs in one row: a prompt, its chosen and its rejected completion, and the next prompt."""
    branches = [(pair["chosen_ids"], pair["rejected_ids"]) for pair in pairs]
    return pack([pair["prompt_ids"] for pair in pairs], branches, multiple, align)


class PackedDPOTrainer(PackedSteps, PlannedDPOTrainer):
    """TRL's DPO where each prompt is computed once, without padding."""

    collate = staticmethod(collate_packed)

    @staticmethod
    def weights(batch: dict[str, Any]) -> dict[str, int]:
        return pair_weights(batch["packed_row"], counts(batch))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row: PackedRow = inputs.pop("packed_row").to(self.accelerator.device)
        grid = PairGrid(row)
        batch = grid.batch()
        batch["attention_mask"] = batch["attention_mask"] * counts(inputs)  # TRL only sums it: a filler adds no tokens

        def packed_model(**padded: Any) -> Any:
            return grid.scatter(model(packed_row=row, **routing(padded)))

        with of_this_rank(self.accelerator):
            return super().compute_loss(packed_model, {**inputs, **batch})
