"""TRL's SFT trainer on packed rows: whole dialogues share a row of tokens, and none sees another.

A dialogue is laid out as a prompt of one token, which nothing predicts, with all the rest as its one branch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from zephyr_ray.training.packed_layout import PackedRow, pack
from zephyr_ray.training.packed_logps import routing
from zephyr_ray.training.packed_metrics import of_this_rank, token_weights
from zephyr_ray.training.packed_steps import PackedSteps, counts
from zephyr_ray.training.rows import IGNORED
from zephyr_ray.training.trainers import PlannedSFTTrainer


def collate_dialogues(dialogues: list[dict[str, Any]], multiple: int = 1, align: int = 1) -> dict[str, Any]:
    """A micro-batch: its dialogues in one row whose targets are their labels, and the plan's columns [B].

    `align` is DPO's: no reference has to be met here.
    """
    batch = {name: torch.tensor([dialogue[name] for dialogue in dialogues]) for name in ("loss_scale", "row")}
    row = pack_dialogues(dialogues, multiple)
    if not counts(batch):
        row = dataclasses.replace(row, targets=torch.full_like(row.targets, IGNORED))
    return {"packed_row": row, **batch}


def pack_dialogues(dialogues: list[dict[str, Any]], multiple: int = 1) -> PackedRow:
    """Dialogues (`input_ids`, `labels`) in one row; tokens that are not learnt have no target."""
    ids = [dialogue["input_ids"] for dialogue in dialogues]
    row = pack([each[:1] for each in ids], [(each[1:],) for each in ids], multiple)
    labels = [label for dialogue in dialogues for label in dialogue["labels"][1:]]
    return dataclasses.replace(row, targets=torch.tensor([labels], dtype=torch.int64))


def learnt(batch: dict[str, Any]) -> int:
    """Tokens of a micro-batch that are learnt."""
    return int((batch["packed_row"].targets != IGNORED).sum())


class PackedSFTTrainer(PackedSteps, PlannedSFTTrainer):
    """TRL's SFT without padding; its loss is the mean over the step's learnt tokens over all workers."""

    loss_is_scaled_for_ga = True  # type: ignore[assignment]
    collate = staticmethod(collate_dialogues)

    @staticmethod
    def weights(batch: dict[str, Any]) -> dict[str, int]:
        return token_weights(learnt(batch))

    def items_in_step(self, micro_batches: list[dict[str, Any]]) -> int | None:
        mine = torch.tensor([sum(map(learnt, micro_batches))], device=self.accelerator.device)
        return int(self.accelerator.reduce(mine, reduction="sum"))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row: PackedRow = inputs.pop("packed_row").to(self.accelerator.device)
        # TRL only sums it: a filler adds no tokens, nor does what the row is filled up with
        tokens = torch.tensor([sum(row.branch_lengths) + len(row.branch_lengths)]) * counts(inputs)

        def packed_model(**padded: Any) -> Any:
            return model(packed_row=row, **routing(padded))

        with of_this_rank(self.accelerator):
            batch = {**inputs, "attention_mask": tokens.to(row.tokens.device)}
            return super().compute_loss(packed_model, batch, num_items_in_batch=num_items_in_batch)
