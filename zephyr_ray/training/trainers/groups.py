"""DPO on groups: a prompt and all of its completions lie once in a packed row, and the loss is over all its pairs.

The loss of a step is the mean over its pairs, as if each of them were a row by itself (`trainers.dpo`). A completion is
computed once, however many pairs it is in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from zephyr_ray.training.losses import Pairs, compare, preference_loss, reward_metrics
from zephyr_ray.training.packed.attention import row_multiple
from zephyr_ray.training.packed.layout import PackedRow, by_branch, pack_groups
from zephyr_ray.training.packed.metrics import Sum, sum_of
from zephyr_ray.training.trainers.dpo import PackedDPOTrainer
from zephyr_ray.training.trl_trainers import plan_of


class GroupedDPOTrainer(PackedDPOTrainer):
    """DPO on packed groups: the mean loss over the step's pairs over all workers."""

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate_groups(rows, row_multiple(self.backend), self.align)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row, scale = inputs["packed_row"], self._take_slots(inputs)
        output = self.forward(model, row)
        pairs = self._compare(row, output, inputs, scale)
        loss, metrics = preference_loss(self.loss, pairs), pair_metrics(row, output, inputs, reward_metrics(pairs))
        if self.section.best_nll:
            nll = -(output.log_probs[0] * inputs["best"][row.branch]).sum()
            loss = loss + self.section.best_nll * nll
            metrics["nll_loss"] = sum_of(nll * pairs.logit.numel(), pairs.logit.numel())
        self.note(metrics, scale)
        return self.with_auxiliary(loss, output) * scale

    def _compare(self, row: PackedRow, output: Any, inputs: dict[str, Any], scale: float) -> Pairs:
        pairs, reference = inputs["pairs"], inputs["ref_logps"]
        log_probs = by_branch(row, output.log_probs)
        mask = by_branch(row, torch.ones_like(row.targets, dtype=torch.bool))
        if scale > 0 and self.state.global_step == 0:
            tokens = mask.sum(-1) * (inputs["times"] > 0)  # once in however many pairs: its roundings do not add up
            self.first_step.add(log_probs.sum(-1).expand(2, -1), reference.expand(2, -1), tokens)
        log_sum_sq = by_branch(row, output.log_sum_sq_probs)[pairs] if self.use_weighting else None
        return compare(self.loss, log_probs[pairs], mask[pairs], reference[pairs], log_sum_sq)


def collate_groups(groups: list[dict[str, Any]], multiple: int = 1, align: int = 1) -> dict[str, Any]:
    """A micro-batch of G groups with N completions and P pairs together.

    Returns:
        packed_row: The groups in one row.
        pairs: int64 [2, P], the numbers in the row of the pairs' chosen and rejected completions.
        times: int64 [2, N], in how many pairs each completion is chosen and rejected.
        best: float32 [N], the weight of each token of a completion in the mean over pairs of the mean NLL of their
            prompt's best completions (`best_of`).
        ref_logps: float32 [N], the reference's log-probs.
        side_tokens: Tokens of the pairs' chosen and of their rejected completions, as plain numbers.
        num_tokens: Those of prompts and completions, each once; 0 of a filler.
    And what the plan says of it.
    """
    plan = plan_of(groups)
    pairs: tuple[list[int], list[int]] = ([], [])
    best: list[float] = []
    of_all = sum(len(group["chosen"]) for group in groups)
    for group in groups:
        lengths, winners = list(map(len, group["completions"])), best_of(group)
        for side, name in zip(pairs, ("chosen", "rejected"), strict=True):
            side += [len(best) + number for number in group[name]]
        share = len(group["chosen"]) / (of_all * max(len(winners), 1))
        best += [share / max(tokens, 1) * (number in winners) for number, tokens in enumerate(lengths)]
    lengths = [len(ids) for group in groups for ids in group["completions"]]
    tokens = sum(lengths) + sum(len(group["prompt_ids"]) for group in groups)
    numbers = torch.tensor(pairs)
    return {
        "packed_row": pack_groups(groups, multiple, align),
        "pairs": numbers,
        "times": torch.stack([side.bincount(minlength=len(best)) for side in numbers]),
        "best": torch.tensor(best),
        "ref_logps": torch.tensor([value for group in groups for value in group["ref_logps"]]),
        "side_tokens": [sum(lengths[number] for number in side) for side in pairs],
        "num_tokens": tokens if plan["loss_scale"] > 0 else 0,
        **plan,
    }


def best_of(group: Mapping[str, Any]) -> list[int]:
    """The numbers of a group's best completions: those that a pair chooses and none rejects."""
    return sorted(set(group["chosen"]) - set(group["rejected"]))


def pair_metrics(
    row: PackedRow, output: Any, inputs: Mapping[str, Any], by_pair: Mapping[str, torch.Tensor]
) -> dict[str, Sum]:
    """The metrics of a row under TRL's names, as `pairs.metrics_of` has them of the same pairs: a completion counts as
    often as pairs have it."""
    count = inputs["pairs"].shape[1]
    found = {name: sum_of(values, count) for name, values in by_pair.items()}
    if output.aux_loss is not None:
        found["aux_loss"] = sum_of(output.aux_loss * count, count)
    if output.entropy is None:
        return found
    (chosen, rejected), tokens = inputs["times"][:, row.branch], inputs["side_tokens"]
    return found | {
        "entropy": sum_of(output.entropy * (chosen + rejected), sum(tokens)),
        "logits/chosen": sum_of(output.mean_logits * chosen, tokens[0]),
        "logits/rejected": sum_of(output.mean_logits * rejected, tokens[1]),
        "mean_token_accuracy": sum_of(output.is_top1 * chosen, tokens[0]),
    }
