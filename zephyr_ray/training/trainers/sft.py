"""The trainers of supervised fine-tuning, on tokenized dialogues.

On packed rows whole dialogues share a row of tokens, and none sees another: a dialogue is laid out as a prompt of one
token, which nothing predicts, with all the rest as its one branch. Padded batches, and dialogues that are joined
(`sft.packing_strategy=wrapped`), have TRL's own loss, which is the oracle that ours is tested against.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from trl import SFTTrainer

from zephyr_ray.training.dataset import IGNORED, Rows
from zephyr_ray.training.held_out_loss import RowLosses
from zephyr_ray.training.packed.attention import row_multiple
from zephyr_ray.training.packed.layout import PackedRow, pack
from zephyr_ray.training.packed.metrics import Sum, sum_of
from zephyr_ray.training.packed.steps import PackedSteps
from zephyr_ray.training.sampler import RankPlan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trl_trainers import PlannedMixin, collate_planned, plan_of


class PlannedSFTTrainer(PlannedMixin, SFTTrainer):
    """TRL's SFT with the plan's rows; its loss is already normalised by the step's tokens over all workers."""

    def row_losses(self, rows: Rows, rank_plan: RankPlan | PackedRankPlan) -> RowLosses:
        """The losses of rows that are not trained on, and a log of their mean. All ranks take part, in step.

        Args:
            rows: All of them.
            rank_plan: This rank's part of them.
        """
        model, found = self.model_wrapped, torch.zeros(2, len(rows), dtype=torch.float64, device=self.args.device)
        optimizer: Any = self.optimizer  # of which some train on other weights than those they arrive at
        model.eval()
        optimizer.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            for slots in itertools.chain.from_iterable(map(rank_plan.step, range(rank_plan.plan.steps))):
                sums = self.loss_sums(model, [rows[slot] for slot in slots])
                if slots[0].loss_scale > 0:
                    found[:, [slot.row for slot in slots]] = sums
        losses, tokens = self.accelerator.reduce(found, reduction="sum").cpu().numpy()
        told = RowLosses(losses, tokens.astype(np.int64))
        self.log({"eval_loss": told.mean})
        model.train()
        optimizer.train()
        return told

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """On the rows that are held out. The trainer calls it where a callback asks for it."""
        metrics = {"eval_loss": self.held_out.evaluate()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def loss_sums(self, model: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
        """Of each row of a micro-batch the sum of its learnt tokens' losses, and how many they are: float64 [2, B]."""
        batch = self._prepare_inputs(collate_planned(self.data_collator)(rows))
        del batch["loss_scale"], batch["row"]
        output = model(**batch, use_cache=False, fused_lm_head=True)
        losses = token_losses(output.log_probs, self.args.loss_type)  # type: ignore[attr-defined]
        return torch.stack([losses.double().sum(-1), output.label_mask.double().sum(-1)])

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self._take_slots(inputs)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class PackedSFTTrainer(PackedSteps, PlannedSFTTrainer):
    """SFT on packed rows: the mean loss over the step's learnt tokens over all workers."""

    loss_is_scaled_for_ga = True  # type: ignore[assignment]

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate_dialogues(rows, row_multiple(self.backend))

    def items_in_step(self, micro_batches: list[dict[str, Any]]) -> torch.Tensor:
        learnt = sum(batch["packed_row"].targets.numel() for batch in micro_batches)
        mine = torch.full((), learnt, device=self.accelerator.device)
        return self.accelerator.reduce(mine, reduction="sum")

    def loss_sums(self, model: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
        row, self.lean = self._prepare_input(self.collate(rows)["packed_row"]), True
        losses = token_losses(self.forward(model, row).log_probs, self.args.loss_type)[0].double()
        each = torch.stack([losses, torch.ones_like(losses)])
        return each.new_zeros(2, len(rows)).index_add(1, row.branch, each)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row, scale = inputs["packed_row"], self._take_slots(inputs)
        output = self.forward(model, row)
        self.note(metrics_of(row, output), scale)
        loss = token_losses(output.log_probs, self.args.loss_type).sum() / num_items_in_batch.clamp(min=1)
        loss = loss * self.accelerator.num_processes  # gradients are averaged over workers
        return self.with_auxiliary(loss, output, self.current_gradient_accumulation_steps)


def collate_dialogues(dialogues: list[dict[str, Any]], multiple: int = 1) -> dict[str, Any]:
    """A micro-batch: its dialogues in one row, the number of its tokens, and what the plan says of it."""
    row, plan = pack_dialogues(dialogues, multiple), plan_of(dialogues)
    tokens = sum(len(dialogue["input_ids"]) for dialogue in dialogues)
    if plan["loss_scale"] == 0:
        row, tokens = row.scoring(torch.zeros_like(row.branch, dtype=torch.bool)), 0
    return {"packed_row": row, "num_tokens": tokens, **plan}


def pack_dialogues(dialogues: list[dict[str, Any]], multiple: int = 1) -> PackedRow:
    """Dialogues (`input_ids`, `labels`) in one row; its targets are the tokens that are learnt."""
    ids = [dialogue["input_ids"] for dialogue in dialogues]
    row = pack([each[:1] for each in ids], [(each[1:],) for each in ids], multiple)
    labels = [label for dialogue in dialogues for label in dialogue["labels"][1:]]
    return row.scoring(torch.tensor(labels, dtype=torch.int64) != IGNORED)


def token_losses(log_probs: torch.Tensor, loss_type: str) -> torch.Tensor:
    """The loss of each learnt token from its log-prob, under TRL's names: `nll`, the negative of it, or `dft`, in which
    a token counts by its probability (arXiv 2508.05629)."""
    return -log_probs * log_probs.exp().detach() if loss_type == "dft" else -log_probs


def metrics_of(row: PackedRow, output: Any) -> dict[str, Sum]:
    """The metrics of a row under TRL's names: means over learnt tokens."""
    learnt, found = row.targets.numel(), {}
    if output.aux_loss is not None:
        found["aux_loss"] = sum_of(output.aux_loss * learnt, learnt)
    if output.entropy is not None:
        found["entropy"] = sum_of(output.entropy, learnt)
        found["mean_token_accuracy"] = sum_of(output.is_top1, learnt)
    return found
