"""TRL's DPO trainer on packed rows: its loss and its metrics unchanged.

TRL's loss calls the model on a padded batch of pairs and reads a few numbers per completion token. Here it calls a
function instead, which computes them on the packed row and puts them where TRL looks for them.
"""

from __future__ import annotations

from typing import Any

import torch

from zephyr_ray.training.packed_attention import Backend, row_multiple
from zephyr_ray.training.packed_layout import PackedRow, pack
from zephyr_ray.training.packed_logps import PairGrid, routing
from zephyr_ray.training.packed_metrics import for_metrics, of_this_rank, pair_weights
from zephyr_ray.training.packed_steps import PackedSteps, counted
from zephyr_ray.training.packing import PackedRankPlan
from zephyr_ray.training.plan import RankPlan
from zephyr_ray.training.rows import Rows
from zephyr_ray.training.trainers import PlannedDPOTrainer, plan_of

_REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")


def collate_packed(pairs: list[dict[str, Any]], multiple: int = 1, align: int = 1) -> dict[str, Any]:
    """A micro-batch: its pairs in one row, what TRL counts and masks, and per pair the reference log-probs [B]; what
    the plan says of it as plain numbers."""
    row, plan = pack_pairs(pairs, multiple, align), plan_of(pairs)
    batch = PairGrid(row).batch()
    counts = counted(pair_weights(row), batch["attention_mask"], plan["loss_scale"])
    references = {name: torch.tensor([pair[name] for pair in pairs]) for name in _REFERENCES}
    return {"packed_row": row, **batch, **references, **counts, **plan}


def pack_pairs(pairs: list[dict[str, Any]], multiple: int = 1, align: int = 1) -> PackedRow:
    """Pairs in one row: a prompt, its chosen and its rejected completion, and the next prompt."""
    branches = [(pair["chosen_ids"], pair["rejected_ids"]) for pair in pairs]
    return pack([pair["prompt_ids"] for pair in pairs], branches, multiple, align)


class PackedDPOTrainer(PackedSteps, PlannedDPOTrainer):
    """TRL's DPO where each prompt is computed once, without padding."""

    align = 1

    def follow(
        self, rows: Rows, rank_plan: RankPlan | PackedRankPlan, backend: Backend = "sdpa", align: int = 1
    ) -> None:
        """As `PackedSteps.follow`; `align` is the multiple at which a pair starts in its row."""
        super().follow(rows, rank_plan, backend)
        self.align = align

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate_packed(rows, row_multiple(self.backend), self.align)

    def loss_reads(self) -> tuple[str, ...]:
        return ("log_probs", "log_sum_sq_probs") if self.use_weighting else ("log_probs",)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        grid = PairGrid(inputs.pop("packed_row"))

        def packed_model(**padded: Any) -> Any:
            return for_metrics(grid.scatter(model(packed_row=grid.row, lean=self.lean, **routing(padded))))

        with of_this_rank(self.accelerator):
            return super().compute_loss(packed_model, inputs)
