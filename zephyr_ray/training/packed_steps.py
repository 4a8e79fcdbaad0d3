"""An optimizer step of packed micro-batches in TRL's trainers: as many as the step needs, exactly the plan's rows.

The data loader yields an optimizer step at a time, and the trainer sees no gradient accumulation: the number of
micro-batches is the step's.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import DistributedType, is_peft_model

from zephyr_ray.training.packed_attention import Backend, row_multiple
from zephyr_ray.training.packed_check import check_attention, check_packable
from zephyr_ray.training.packed_logps import add_packed_forward
from zephyr_ray.training.packed_metrics import StepMeans
from zephyr_ray.training.packing import PackedRankPlan
from zephyr_ray.training.plan import RankPlan, Slot
from zephyr_ray.training.rows import Rows

Weigh = Callable[[dict[str, Any]], dict[str, int]]
Collate = Callable[[list[dict[str, Any]], int, int], dict[str, Any]]


class PackedSteps:
    """Goes before a planned trainer among a class's bases. Set `rows` and the plan with `follow`.

    A micro-batch is a dict with its `packed_row` and per row of the plan (a pair, a dialogue) `loss_scale` and `row`.
    """

    rows: Rows
    rank_plan: Any
    model: Any
    accelerator: Any
    args: Any
    _metrics: Any
    _total_train_tokens: int
    backend: Backend
    align: int
    collate: Collate
    """Rows, and the multiples at which the packed row ends and a pair starts in it -> a micro-batch. Static."""
    weights: Weigh
    """A micro-batch -> what its metrics count, by what they are means of (`packed_metrics`). A static method."""

    def follow(
        self, rows: Rows, rank_plan: RankPlan | PackedRankPlan, backend: Backend = "sdpa", align: int = 1
    ) -> None:
        super().follow(rows, rank_plan)  # type: ignore[misc]
        self.backend, self.align = backend, align
        model = self.model.get_base_model() if is_peft_model(self.model) else self.model
        check_packable(model.config, type(model))
        device = self.accelerator.device
        if device.type == "cuda" and backend != "sdpa":
            narrow = torch.bfloat16 if self.args.bf16 else torch.float32
            check_attention(model.config, backend, device, narrow)
        add_packed_forward(model, backend)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """An optimizer step's micro-batches at a time, over the whole run: the trainer sees it as one epoch."""
        multiple = row_multiple(self.backend)
        return torch.utils.data.DataLoader(
            _MicroBatches(self.rows),
            batch_sampler=self.rank_plan,
            collate_fn=lambda step: {"micro_batches": [self.collate(rows, multiple, self.align) for rows in step]},
        )

    def items_in_step(self, micro_batches: list[dict[str, Any]]) -> int | None:
        """What the loss of a step is divided by, over all ranks, where it is not a mean over micro-batches."""
        return None

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Accumulates the step's gradients. They are reduced over ranks at the last micro-batch, where DDP and ZeRO-1
        wait for it; ZeRO-2 and 3 reduce at each and are told which one ends the step."""
        micro_batches = inputs["micro_batches"]
        self.current_gradient_accumulation_steps = len(micro_batches)
        items = self.items_in_step(micro_batches)
        means, logged = StepMeans(), self._metrics["train"]
        tokens_before, losses = self._total_train_tokens, []
        for number, batch in enumerate(micro_batches, start=1):
            self._metrics["train"] = defaultdict(list)
            weight = self.weights(batch)
            with self._gradients_of(model, last=number == len(micro_batches)):
                losses.append(super().training_step(model, batch, items))  # type: ignore[misc]
            self._metrics["train"].pop("num_tokens")
            means.add(self._metrics["train"], weight)
        self._metrics["train"] = logged
        self._log_step(means, self._total_train_tokens - tokens_before, tokens_before)
        return torch.stack(losses).sum()

    def _gradients_of(self, model: Any, last: bool) -> contextlib.AbstractContextManager[None]:
        accelerator = self.accelerator
        accelerator.gradient_state._set_sync_gradients(last)
        if last or accelerator.distributed_type == DistributedType.DEEPSPEED:
            return contextlib.nullcontext()
        no_sync: contextlib.AbstractContextManager[None] = accelerator.no_sync(model)
        return no_sync

    def _log_step(self, means: StepMeans, tokens: int, tokens_before: int) -> None:
        accelerator = self.accelerator
        means.add({"num_tokens": [float(tokens)]}, {"pairs": 1})
        total = means.over_ranks(accelerator)
        self._total_train_tokens = tokens_before + round(total.pop("num_tokens") * accelerator.num_processes)
        for name, value in total.items():
            self._metrics["train"][name].append(value)
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]


def counts(batch: dict[str, Any]) -> bool:
    """Whether a micro-batch is part of the step; a filler only keeps the ranks in step."""
    return float(batch["loss_scale"][0]) > 0


class _MicroBatches(torch.utils.data.Dataset):
    """Rows by the list of slots that share a micro-batch."""

    def __init__(self, rows: Rows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, slots: list[Slot]) -> list[dict[str, Any]]:
        return [self.rows[slot] for slot in slots]
