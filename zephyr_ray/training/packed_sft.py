"""TRL's SFT trainer on packed rows: whole dialogues share a row of tokens, and none sees another.

A dialogue is laid out as a prompt of one token, which nothing predicts, with all the rest as its one branch.
"""

from __future__ import annotations

from typing import Any

import torch

from zephyr_ray.training.packed_attention import row_multiple
from zephyr_ray.training.packed_layout import PackedRow, pack
from zephyr_ray.training.packed_logps import routing
from zephyr_ray.training.packed_metrics import for_metrics, of_this_rank, token_weights
from zephyr_ray.training.packed_steps import PackedSteps, counted
from zephyr_ray.training.rows import IGNORED
from zephyr_ray.training.trainers import PlannedSFTTrainer, plan_of


def collate_dialogues(dialogues: list[dict[str, Any]], multiple: int = 1) -> dict[str, Any]:
    """A micro-batch: its dialogues in one row, the number of its tokens, and what the plan says of it."""
    row, plan = pack_dialogues(dialogues, multiple), plan_of(dialogues)
    if plan["loss_scale"] == 0:
        row = row.scoring(torch.zeros_like(row.branch, dtype=torch.bool))
    tokens = torch.tensor([sum(len(dialogue["input_ids"]) for dialogue in dialogues)])
    return {"packed_row": row, **counted(token_weights(row.targets.numel()), tokens, plan["loss_scale"]), **plan}


def pack_dialogues(dialogues: list[dict[str, Any]], multiple: int = 1) -> PackedRow:
    """Dialogues (`input_ids`, `labels`) in one row; its targets are the tokens that are learnt."""
    ids = [dialogue["input_ids"] for dialogue in dialogues]
    row = pack([each[:1] for each in ids], [(each[1:],) for each in ids], multiple)
    labels = [label for dialogue in dialogues for label in dialogue["labels"][1:]]
    return row.scoring(torch.tensor(labels, dtype=torch.int64) != IGNORED)


class PackedSFTTrainer(PackedSteps, PlannedSFTTrainer):
    """TRL's SFT without padding; its loss is the mean over the step's learnt tokens over all workers."""

    loss_is_scaled_for_ga = True  # type: ignore[assignment]

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate_dialogues(rows, row_multiple(self.backend))

    def items_in_step(self, micro_batches: list[dict[str, Any]]) -> torch.Tensor:
        learnt = sum(batch["packed_row"].targets.numel() for batch in micro_batches)
        mine = torch.full((), learnt, device=self.accelerator.device)
        return self.accelerator.reduce(mine, reduction="sum")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row: PackedRow = inputs.pop("packed_row")

        def packed_model(**padded: Any) -> Any:
            return for_metrics(model(packed_row=row, lean=self.lean, **routing(padded)))

        with of_this_rank(self.accelerator):
            return super().compute_loss(packed_model, inputs, num_items_in_batch=num_items_in_batch)
