"""What all trainers change of TRL's: the plan's micro-batches of rows that are tokenized already, floats that stay
float32, checkpoints without gathered weights, and a count of every row that was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from zephyr_ray.errors import GuardError
from zephyr_ray.training.dataset import IGNORED, Rows
from zephyr_ray.training.sampler import RankPlan
from zephyr_ray.training.token_batching import PackedRankPlan


class PlannedMixin:
    """Goes before TRL's trainer among a class's bases.

    Set `rows`, `rank_plan` and `seen` (int64 counts per row) with `follow`.
    """

    section: Any
    """The method's own section of the recipe."""
    rows: Rows
    rank_plan: RankPlan | PackedRankPlan
    seen: np.ndarray
    held_out: Any = None
    """What evaluates the loss on rows that are held out (`held_out_evaluation.EvaluateHeldOut`), if anything does."""

    def follow(self, rows: Rows, rank_plan: RankPlan | PackedRankPlan) -> None:
        self.rows, self.rank_plan = rows, rank_plan
        self.seen = np.zeros(len(rows), dtype=np.int64)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """The plan's micro-batches of this rank, over the whole run: the trainer sees it as one epoch."""
        return torch.utils.data.DataLoader(
            self.rows,
            batch_sampler=self.rank_plan,
            collate_fn=collate_planned(self.data_collator),  # type: ignore[attr-defined]
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A checkpoint under DeepSpeed has the weights in its shards, and is resumed from those: whole ones, gathered
        from all ranks, are the export's alone."""
        if not (_internal_call and self.is_deepspeed_enabled):  # type: ignore[attr-defined]
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]

    def _prepare_input(self, data: Any) -> Any:
        """Moves a batch to the device as it is.

        The trainer casts every float of a batch to DeepSpeed's dtype, as if it were an input of the model. Ours are
        none: in bfloat16 a reference log-prob of 300 nats would lose up to 1 of them, a loss scale 0.4 %.
        """
        if isinstance(data, torch.Tensor):
            return data.to(self.args.device, non_blocking=True)  # type: ignore[attr-defined]
        return super()._prepare_input(data)  # type: ignore[misc]

    def _clip_grad_norm(self, model: Any) -> Any:
        """As the trainer's. DeepSpeed has clipped; accelerate would wait for its norm at each step."""
        if self.is_deepspeed_enabled:  # type: ignore[attr-defined]
            return model.get_global_grad_norm()
        return super()._clip_grad_norm(model)  # type: ignore[misc]

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """As the trainer's, which under DeepSpeed waits for the norm too. It is read where it is logged."""
        return super()._get_grad_norm(model) if grad_norm is None else grad_norm  # type: ignore[misc]

    def _take_slots(self, inputs: dict[str, Any]) -> float:
        """Removes from a batch what the plan says of it (`plan_of`), counts its rows and returns its loss scale."""
        scale, rows = inputs.pop("loss_scale"), inputs.pop("row")
        if scale > 0 and self.model.training:  # type: ignore[attr-defined]
            np.add.at(self.seen, rows, 1)
        return scale

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        plan = self.rank_plan.plan
        if "epoch" in logs or "loss" in logs:
            logs["epoch"] = self.state.global_step / plan.steps_per_epoch  # type: ignore[attr-defined]
        super().log(logs, start_time)  # type: ignore[misc]
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            raise GuardError(f"the loss is {loss} at step {self.state.global_step}; lower the learning rate")  # type: ignore[attr-defined]


def collate_planned(
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> Callable[[list[dict[str, Any]]], Any]:
    """TRL's collator, with what the plan says carried along and nothing to learn in filler rows."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {**collator(rows), **plan_of(rows)}
        if "labels" in batch and batch["loss_scale"] == 0:
            batch["labels"][:] = IGNORED
        return batch

    return collate


def plan_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the plan says of a micro-batch, never on the device: its `loss_scale` (a float, one for all of its rows),
    and which rows it has (`row`, a list)."""
    return {"loss_scale": rows[0]["loss_scale"], "row": [row["row"] for row in rows]}
