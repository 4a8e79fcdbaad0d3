"""Evaluates the loss on rows that are held out while a model trains.

It is the training's own loss, computed on the same workers in the same way: a mean over the learnt tokens of all rows.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from transformers import TrainerCallback

from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.held_out_loss import RowLosses, rise
from zephyr_ray.training.sampler import RankPlan
from zephyr_ray.training.token_batching import PackedRankPlan

_BEST = "held_out_best.npy"


class EvaluateHeldOut(TrainerCallback):
    """Evaluates the loss before the first step, every so many steps and after the last one, and logs it as `eval_loss`.

    All ranks take part, and each knows the whole result. A resumed training has the curve from the trainer's state and
    the rows' losses at its minimum from the checkpoint.

    Args:
        trainer: Has `row_losses` (`trainers.sft`).
        rows: What is evaluated.
        rank_plan: This rank's part of it: one epoch, in any order.
        every: Steps between two evaluations.
    """

    def __init__(self, trainer: Any, rows: Rows, rank_plan: RankPlan | PackedRankPlan, every: int):
        self.trainer, self.rows, self.rank_plan, self.every = trainer, rows, rank_plan, every
        self.best: np.ndarray | None = None
        self.last: RowLosses | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self.evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            control.should_evaluate = True  # after the step's own log, and before its checkpoint

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.best is not None:
            np.save(os.path.join(args.output_dir, f"checkpoint-{state.global_step}", _BEST), self.best)

    def restore(self, checkpoint: str) -> None:
        """Takes the rows' losses at the minimum from a checkpoint that has them."""
        file = os.path.join(checkpoint, _BEST)
        self.best = np.load(file) if os.path.exists(file) else None

    def curve(self) -> list[dict[str, float]]:
        """Each evaluation's step and loss."""
        logged = [row for row in self.trainer.state.log_history if "eval_loss" in row]
        return [{"step": row["step"], "loss": row["eval_loss"]} for row in logged]

    def summary(self) -> dict[str, Any]:
        """The curve and what there is to say of it: for the manifest."""
        found, curve = self.last, self.curve()
        assert found is not None  # the last step ends with an evaluation
        counts = {"rows": len(found.tokens), "tokens": int(found.tokens.sum())}
        risen = None if self.best is None else rise(self.best, found)
        return {**counts, "curve": curve, "rise": risen and risen._asdict()}

    def evaluate(self) -> float:
        """The loss of now."""
        lowest = min((point["loss"] for point in self.curve()), default=math.inf)
        self.last = self.trainer.row_losses(self.rows, self.rank_plan)
        if self.last.mean < lowest:
            self.best = self.last.losses
        return self.last.mean
