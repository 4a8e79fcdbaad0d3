"""What the methods share that learn from pairs: TRL's DPO trainer on the plan's pairs, and a step on packed ones.

On packed rows each prompt is computed once, and what a method makes of the completions' log-probs is its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from trl import DPOTrainer
from trl.trainer import dpo_trainer, kto_trainer

from zephyr_ray.training.packed.attention import row_multiple
from zephyr_ray.training.packed.layout import PackedRow, pack_pairs
from zephyr_ray.training.packed.metrics import Sum, sum_of
from zephyr_ray.training.packed.steps import PackedSteps
from zephyr_ray.training.trl_trainers import PlannedMixin, plan_of

REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")
"""The columns of pairs that have a reference's log-probs."""


class PlannedPairsTrainer(PlannedMixin, DPOTrainer):
    """TRL's DPO trainer with the plan's rows."""

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any):
        with no_weight_is_hashed():
            super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # tokenized by the `tokenized` stage

    def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # computed by the `reference_logps` stage, where a method reads any


class Learnt(NamedTuple):
    """What a method makes of a micro-batch of B pairs."""

    loss: torch.Tensor
    """[], the mean over its pairs."""
    metrics: Mapping[str, torch.Tensor]
    """[B] each, without a gradient."""


class PackedPairsTrainer(PackedSteps, PlannedPairsTrainer):
    """A method on packed pairs: the mean loss over the step's pairs over all workers. A subclass has `learn`."""

    def learn(self, row: PackedRow, output: Any, inputs: dict[str, Any], scale: float) -> Learnt:
        """The loss of a micro-batch.

        Args:
            row: Its pairs; `layout.by_completion` and `completion_mask` turn the output's fields into [2, B, L], the
                chosen completions first.
            output: The head's fields (`loss_reads`), each [1, C], of the row's C completion tokens.
            inputs: The micro-batch, with the columns of `REFERENCES` ([B] each) where its pairs have them.
            scale: Its loss scale; 0 of a filler, whose loss counts nothing.
        """
        raise NotImplementedError

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate_packed(rows, row_multiple(self.backend), self.align)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row, scale = inputs["packed_row"], self._take_slots(inputs)
        output = self.forward(model, row)
        learnt = self.learn(row, output, inputs, scale)
        self.note(metrics_of(row, output, learnt.metrics), scale)
        return self.with_auxiliary(learnt.loss, output) * scale


def collate_packed(pairs: list[dict[str, Any]], multiple: int = 1, align: int = 1) -> dict[str, Any]:
    """A micro-batch: its pairs in one row, and per pair the reference log-probs [B] that it has; what the plan says of
    it and the number of its tokens, a prompt's twice, as plain numbers."""
    plan = plan_of(pairs)
    lengths = [2 * len(pair["prompt_ids"]) + len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs]
    known = [name for name in REFERENCES if name in pairs[0]]
    references = {name: torch.tensor([pair[name] for pair in pairs]) for name in known}
    tokens = sum(lengths) if plan["loss_scale"] > 0 else 0
    return {"packed_row": pack_pairs(pairs, multiple, align), **references, "num_tokens": tokens, **plan}


def metrics_of(row: PackedRow, output: Any, by_pair: Mapping[str, torch.Tensor]) -> dict[str, Sum]:
    """The metrics of a row under TRL's names: means over pairs, and those of the head's fields over tokens."""
    count, lengths = len(row.branch_lengths) // 2, row.branch_lengths
    found = {name: sum_of(values, count) for name, values in by_pair.items()}
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


@contextlib.contextmanager
def no_weight_is_hashed() -> Iterator[None]:
    """TRL hashes all weights, two minutes of each rank's start at 7 billion, to name its cache of reference log-probs.

    Ours come from a stage, whose fingerprint has the model's, and the name is never read.
    """
    theirs = dpo_trainer.hash_module, kto_trainer.hash_module
    dpo_trainer.hash_module = kto_trainer.hash_module = lambda module: "reference_logps"
    try:
        yield
    finally:
        dpo_trainer.hash_module, kto_trainer.hash_module = theirs
