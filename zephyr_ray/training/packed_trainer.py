"""TRL's DPO trainer on packed rows: its loss and its metrics unchanged, and a step that is exactly the plan's.

TRL's loss calls the model on a padded batch of pairs and reads a few numbers per completion token. Here it calls a
function instead, which computes them on the packed row and puts them where TRL looks for them. The data loader yields
an optimizer step at a time, and the trainer sees no gradient accumulation: the number of micro-batches is the step's.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import Any

import torch
from accelerate.utils import DistributedType, is_peft_model

from zephyr_ray.training.packed_attention import Backend, row_multiple
from zephyr_ray.training.packed_check import check_packable
from zephyr_ray.training.packed_layout import PackedRow, pack
from zephyr_ray.training.packed_logps import PairGrid, add_packed_forward
from zephyr_ray.training.packed_metrics import StepMeans, of_this_rank, weights
from zephyr_ray.training.packing import PackedRankPlan
from zephyr_ray.training.plan import Slot
from zephyr_ray.training.rows import Rows
from zephyr_ray.training.trainers import PlannedDPOTrainer


class PackedDPOTrainer(PlannedDPOTrainer):
    """TRL's DPO where each prompt is computed once, without padding. Set `rows` and the plan with `follow`."""

    backend: Backend

    def follow(self, rows: Rows, rank_plan: PackedRankPlan, backend: Backend = "sdpa") -> None:  # type: ignore[override]
        super().follow(rows, rank_plan)
        self.backend = backend
        model: Any = self.model
        model = model.get_base_model() if is_peft_model(model) else model
        check_packable(model.config, type(model), rows.longest_sequence())
        add_packed_forward(model, backend)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """An optimizer step's micro-batches at a time, over the whole run: the trainer sees it as one epoch."""
        multiple = row_multiple(self.backend)
        return torch.utils.data.DataLoader(
            _MicroBatches(self.rows),
            batch_sampler=self.rank_plan,
            collate_fn=lambda step: {"micro_batches": [collate_packed(pairs, multiple) for pairs in step]},
        )

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Accumulates the step's gradients. They are reduced over ranks at the last micro-batch, where DDP and ZeRO-1
        wait for it; ZeRO-2 and 3 reduce at each and are told which one ends the step."""
        means, logged, micro_batches = StepMeans(), self._metrics["train"], inputs["micro_batches"]
        tokens_before, losses = self._total_train_tokens, []
        for number, batch in enumerate(micro_batches, start=1):
            self._metrics["train"] = defaultdict(list)
            weight = weights(batch["packed_row"], counts=float(batch["loss_scale"][0]) > 0)
            with self._gradients_of(model, last=number == len(micro_batches)):
                losses.append(super().training_step(model, batch))
            self._metrics["train"].pop("num_tokens")
            means.add(self._metrics["train"], weight)
        self._metrics["train"] = logged
        self._log_step(means, self._total_train_tokens - tokens_before, tokens_before)
        return torch.stack(losses).sum()

    def _gradients_of(self, model: Any, last: bool) -> contextlib.AbstractContextManager[None]:
        self.accelerator.gradient_state._set_sync_gradients(last)
        if last or self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(model)

    def _log_step(self, means: StepMeans, tokens: int, tokens_before: int) -> None:
        means.add({"num_tokens": [float(tokens)]}, {"pairs": 1})
        total = means.over_ranks(self.accelerator)
        self._total_train_tokens = tokens_before + round(total.pop("num_tokens") * self.accelerator.num_processes)
        for name, value in total.items():
            self._metrics["train"][name].append(value)
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        row: PackedRow = inputs.pop("packed_row").to(self.accelerator.device)
        grid = PairGrid(row)
        counts = float(inputs["loss_scale"][0]) > 0
        batch = grid.batch()
        batch["attention_mask"] = batch["attention_mask"] * counts  # which TRL only sums: a filler adds no tokens

        def packed_model(**padded: Any) -> Any:
            routing = {name: padded[name] for name in ("output_router_logits",) if name in padded}
            return grid.scatter(model(packed_row=row, **routing))

        with of_this_rank(self.accelerator):
            return super().compute_loss(packed_model, {**inputs, **batch})


class _MicroBatches(torch.utils.data.Dataset):
    """Rows by the list of slots that share a micro-batch."""

    def __init__(self, rows: Rows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, slots: list[Slot]) -> list[dict[str, Any]]:
        return [self.rows[slot] for slot in slots]


def collate_packed(pairs: list[dict[str, Any]], multiple: int = 1) -> dict[str, Any]:
    """A micro-batch: its pairs in one row, and per pair the reference log-probs [B] and the plan's columns [B]."""
    columns = ("ref_chosen_logps", "ref_rejected_logps", "loss_scale", "row")
    return {"packed_row": pack_pairs(pairs, multiple)} | {
        name: torch.tensor([pair[name] for pair in pairs]) for name in columns
    }


def pack_pairs(pairs: list[dict[str, Any]], multiple: int = 1) -> PackedRow:
    """Pairs in one row: a prompt, its chosen and its rejected completion, and the next prompt."""
    branches = [(pair["chosen_ids"], pair["rejected_ids"]) for pair in pairs]
    return pack([pair["prompt_ids"] for pair in pairs], branches, multiple)
