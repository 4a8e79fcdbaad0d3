"""Direct preference optimization (arXiv 2305.18290) on pairs whose reference log-probs are columns.

Packed rows have the loss of `losses.py`, and each prompt is computed once. Padded batches have TRL's, which is the
oracle that ours is tested against.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer
from trl.trainer import dpo_trainer

from zephyr_ray.config.training import DPO
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.training.dataset import Rows, load_pairs
from zephyr_ray.training.losses import LOSSES, Pairs, PreferenceLoss, compare, preference_loss, reward_metrics
from zephyr_ray.training.methods import Method
from zephyr_ray.training.packed.attention import Backend, row_multiple
from zephyr_ray.training.packed.layout import PackedRow, by_completion, completion_mask, pack_pairs
from zephyr_ray.training.packed.metrics import Sum, sum_of
from zephyr_ray.training.packed.steps import PackedSteps
from zephyr_ray.training.reference_guard import TOLERANCE, FirstStep, FirstStepGuard, check_no_dropout
from zephyr_ray.training.sampler import RankPlan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trl_trainers import PlannedMixin, plan_of

_REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")


class PlannedDPOTrainer(PlannedMixin, DPOTrainer):
    """TRL's DPO with the plan's rows, on padded batches and with TRL's loss."""

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any):
        with _no_weight_is_hashed():
            super().__init__(*args, **kwargs)

    def follow(self, rows: Rows, rank_plan: RankPlan | PackedRankPlan) -> None:
        super().follow(rows, rank_plan)
        assert self.model is not None
        check_no_dropout(self.model)
        self.first_step = FirstStep()
        self.accelerator.gather = _gather_uneven(self.accelerator)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # tokenized by the `tokenized` stage

    def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # computed by the `reference_logps` stage

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        scale = self._take_slots(inputs)
        if scale > 0 and self.state.global_step == 0:
            model = self.first_step.watched(model, inputs, self.ld_alpha)
        return super().compute_loss(model, inputs) * scale


class PackedDPOTrainer(PackedSteps, PlannedDPOTrainer):
    """DPO on packed rows: the mean loss over the step's pairs over all workers."""

    def follow(
        self, rows: Rows, rank_plan: RankPlan | PackedRankPlan, backend: Backend = "sdpa", align: int = 1
    ) -> None:
        super().follow(rows, rank_plan, backend, align)
        self.loss = loss_of(self.args)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate_packed(rows, row_multiple(self.backend), self.align)

    def loss_reads(self) -> tuple[str, ...]:
        return ("log_probs", "log_sum_sq_probs") if self.use_weighting else ("log_probs",)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row, scale = inputs["packed_row"], self._take_slots(inputs)
        output = self.forward(model, row)
        log_sum_sq = by_completion(row, output.log_sum_sq_probs) if self.use_weighting else None
        reference = torch.stack([inputs[name] for name in _REFERENCES])
        pairs = compare(self.loss, by_completion(row, output.log_probs), completion_mask(row), reference, log_sum_sq)
        if scale > 0 and self.state.global_step == 0:
            self.first_step.add(pairs.policy, pairs.reference, pairs.tokens)
        self.note(metrics_of(row, output, pairs), scale)
        return self.with_auxiliary(preference_loss(self.loss, pairs), output) * scale


def collate_packed(pairs: list[dict[str, Any]], multiple: int = 1, align: int = 1) -> dict[str, Any]:
    """A micro-batch: its pairs in one row, and per pair the reference log-probs [B]; what the plan says of it and the
    number of its tokens, a prompt's twice, as plain numbers."""
    plan = plan_of(pairs)
    lengths = [2 * len(pair["prompt_ids"]) + len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs]
    references = {name: torch.tensor([pair[name] for pair in pairs]) for name in _REFERENCES}
    tokens = sum(lengths) if plan["loss_scale"] > 0 else 0
    return {"packed_row": pack_pairs(pairs, multiple, align), **references, "num_tokens": tokens, **plan}


def loss_of(args: Any) -> PreferenceLoss:
    """The loss that a DPOConfig of TRL's asks for."""
    return PreferenceLoss(**{field.name: getattr(args, field.name) for field in dataclasses.fields(PreferenceLoss)})


def metrics_of(row: PackedRow, output: Any, pairs: Pairs) -> dict[str, Sum]:
    """The metrics of a row under TRL's names: means over pairs, and those of the head's fields over tokens."""
    count, lengths = len(row.branch_lengths) // 2, row.branch_lengths
    found = {name: sum_of(values, count) for name, values in reward_metrics(pairs).items()}
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
def _no_weight_is_hashed() -> Iterator[None]:
    """TRL hashes all weights, two minutes of each rank's start at 7 billion, to name its cache of reference log-probs.

    Ours come from a stage, whose fingerprint has the model's, and the name is never read.
    """
    theirs = dpo_trainer.hash_module
    dpo_trainer.hash_module = lambda module: "reference_logps"
    try:
        yield
    finally:
        dpo_trainer.hash_module = theirs


def _gather_uneven(accelerator: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """`accelerator.gather` where ranks hold different numbers of values.

    TRL gathers one value per pair for its metrics. In the last step of an epoch the pairs may not divide by the number
    of ranks, and gloo and NCCL gather equal sizes only.
    """
    gather = accelerator.gather

    def gather_uneven(values: torch.Tensor) -> torch.Tensor:
        if values.dim() == 0 or accelerator.num_processes == 1:
            return gather(values)
        size = torch.tensor([values.shape[0]], device=values.device)
        sizes = gather(size).tolist()
        padded = values.new_zeros(max(sizes), *values.shape[1:])
        padded[: values.shape[0]] = values
        parts = gather(padded).split(max(sizes))
        return torch.cat([part[:count] for part, count in zip(parts, sizes, strict=True)])

    return gather_uneven


def options(section: DPO) -> dict[str, Any]:
    """The section under TRL's names.

    Raises:
        UserError: TRL has no such loss.
    """
    if unknown := set(section.loss_type) - LOSSES.keys():
        raise UserError(f"dpo.loss_type={', '.join(sorted(unknown))}: not one of {', '.join(LOSSES)}")
    return {
        "beta": section.beta,
        "loss_type": list(section.loss_type),
        "loss_weights": list(section.loss_weights) if section.loss_weights else None,
        "label_smoothing": section.label_smoothing,
        "max_length": None,  # the `tokenized` stage has truncated
        "precompute_ref_log_probs": True,  # the `reference_logps` stage has computed
    }


def load_rows(section: DPO, tokenized: Artifact, reference_logps: Artifact | None) -> Rows:
    assert reference_logps is not None
    return load_pairs(tokenized, reference_logps)


def guards(trainer: Any, section: DPO, dtype: str) -> list[FirstStepGuard]:
    """At the first step the policy is the reference still."""
    return [FirstStepGuard(trainer, section.step0_tolerance or TOLERANCE[dtype])]


METHOD = Method(
    name="dpo",
    config=DPOConfig,
    options=options,
    load_rows=load_rows,
    padded=PlannedDPOTrainer,
    packed=PackedDPOTrainer,
    packs=lambda section: True,
    meets_a_reference=True,
    length_field="tokenized.max_length",
    guards=guards,
)
