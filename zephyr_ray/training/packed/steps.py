"""An optimizer step of packed micro-batches in TRL's trainers: as many as the step needs, exactly the plan's rows.

The data loader yields an optimizer step at a time, and the trainer sees no gradient accumulation: the number of
micro-batches is the step's.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
from accelerate.utils import DistributedType, is_peft_model
from transformers.trainer_callback import DefaultFlowCallback, TrainerControl

from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.packed.attention import Backend
from zephyr_ray.training.packed.check import check_attention, check_packable
from zephyr_ray.training.packed.layout import PackedRow
from zephyr_ray.training.packed.logps import add_packed_forward
from zephyr_ray.training.packed.metrics import Metrics, Sum
from zephyr_ray.training.prefetch import Prefetched
from zephyr_ray.training.sampler import RankPlan, Slot
from zephyr_ray.training.token_batching import PackedRankPlan

STEPS_AHEAD = 2
"""How many steps' micro-batches are prepared, at most, while one is trained on."""


class PackedSteps:
    """Goes before a planned trainer among a class's bases. Set `rows` and the plan with `follow`.

    A micro-batch is a dict with its `packed_row` and what else the loss reads, what the plan says (`plan_of`), and
    `num_tokens`, how many it trains on: none where it is a filler, which only keeps the ranks in step. `compute_loss`
    calls the model with `forward`, and notes its metrics with `note`.
    """

    rows: Rows
    rank_plan: Any
    model: Any
    accelerator: Any
    args: Any
    state: Any
    aux_loss_enabled: bool
    router_aux_loss_coef: float
    unlogged: Metrics
    noted: list[dict[str, Sum]]
    """The metrics of the micro-batches of the step that runs."""
    trained_tokens = 0
    """On all ranks, up to the last log."""
    backend: Backend
    align = 1
    lean: bool = False
    """Whether the head computes what the loss reads alone: the step that runs is not logged."""
    _prefetched: Prefetched | None = None

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows -> a micro-batch, on the CPU. Runs in a thread."""
        raise NotImplementedError

    def loss_reads(self) -> tuple[str, ...]:
        """The fields of the head that the loss reads."""
        return ("log_probs",)

    def items_in_step(self, micro_batches: list[dict[str, Any]]) -> torch.Tensor | None:
        """What the loss of a step is divided by, over all ranks, where it is not a mean over micro-batches."""
        return None

    def follow(
        self, rows: Rows, rank_plan: RankPlan | PackedRankPlan, backend: Backend = "sdpa", align: int = 1
    ) -> None:
        """Takes the rows, the plan, how attention is computed, and the multiple at which a pair starts in its row."""
        super().follow(rows, rank_plan)  # type: ignore[misc]
        self.backend, self.align, self.unlogged = backend, align, Metrics(self.accelerator.device)
        model = self.model.get_base_model() if is_peft_model(self.model) else self.model
        check_packable(model.config, type(model))
        device = self.accelerator.device
        if device.type == "cuda" and backend != "sdpa":
            narrow = torch.bfloat16 if self.args.bf16 else torch.float32
            check_attention(model.config, backend, device, narrow)
        self.add_forward(model)

    def add_forward(self, model: Any) -> None:
        """Gives the model what `forward` calls: log-probs of completion tokens, unless a method reads others."""
        add_packed_forward(model, self.backend, self.loss_reads())

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """An optimizer step's micro-batches at a time, over the whole run: the trainer sees it as one epoch."""
        return torch.utils.data.DataLoader(
            _MicroBatches(self.rows),
            batch_sampler=self.rank_plan,
            collate_fn=lambda step: {"micro_batches": [self.collate(rows) for rows in step]},
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """As the trainer's, from steps that were prepared while those before them ran: partitioned, read, laid out and
        pinned. Nothing random and no collective is part of it."""
        if self._prefetched is None or self._prefetched.source is not epoch_iterator:
            self._close()
            self._prefetched = Prefetched(epoch_iterator, STEPS_AHEAD)
        return super().get_batch_samples(self._prefetched, num_batches, device)  # type: ignore[misc]

    def train(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().train(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._close()

    def _close(self) -> None:
        if self._prefetched is not None:
            self._prefetched.close()
            self._prefetched = None

    def _prepare_input(self, data: Any) -> Any:
        if isinstance(data, PackedRow):
            return data.to(self.args.device)
        return super()._prepare_input(data)  # type: ignore[misc]

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Accumulates the step's gradients. They are reduced over ranks at the last micro-batch, where DDP and ZeRO-1
        wait for it; ZeRO-2 and 3 reduce at each and are told which one ends the step."""
        micro_batches = inputs["micro_batches"]
        self.current_gradient_accumulation_steps = len(micro_batches)
        self.lean, self.noted = not self._is_logged(), []
        items, tokens = self.items_in_step(micro_batches), sum(batch.pop("num_tokens") for batch in micro_batches)
        losses = []
        for number, batch in enumerate(micro_batches, start=1):
            with self._gradients_of(model, last=number == len(micro_batches)):
                losses.append(super().training_step(model, batch, items))  # type: ignore[misc]
        self.unlogged.add_step(self.noted, tokens)
        return torch.stack(losses).sum()

    def forward(self, model: Any, row: PackedRow) -> Any:
        """TRL's output of the model, or of the wrapper around it, for a row: [1, C] for each of its fields."""
        routing = {"output_router_logits": True} if self.aux_loss_enabled else {}
        return model(packed_row=row, lean=self.lean, **routing)

    def with_auxiliary(self, loss: torch.Tensor, output: Any, parts: int = 1) -> torch.Tensor:
        """The loss and, where a mixture of experts has one, a part of its load-balancing loss, as TRL weights it."""
        return loss + self.router_aux_loss_coef * output.aux_loss / parts if self.aux_loss_enabled else loss

    def note(self, metrics: dict[str, Sum], loss_scale: float) -> None:
        """Keeps the metrics of a micro-batch for the log; of a filler only their names."""
        self.noted.append({name: Sum(total, number * (loss_scale > 0)) for name, (total, number) in metrics.items()})

    def _is_logged(self) -> bool:
        """Whether the step that runs ends with a log, by the trainer's own rule."""
        after = copy.copy(self.state)
        after.global_step += 1
        return bool(DefaultFlowCallback().on_step_end(self.args, after, TrainerControl()).should_log)

    def _gradients_of(self, model: Any, last: bool) -> contextlib.AbstractContextManager[None]:
        accelerator = self.accelerator
        accelerator.gradient_state._set_sync_gradients(last)
        if last or accelerator.distributed_type == DistributedType.DEEPSPEED:
            return contextlib.nullcontext()
        no_sync: contextlib.AbstractContextManager[None] = accelerator.no_sync(model)
        return no_sync

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL's, with the means of the metrics over the steps since the last log of training."""
        if self.unlogged.steps and "eval_loss" not in logs:
            steps, tokens = self.unlogged.over_ranks(self.accelerator)
            self.trained_tokens += tokens
            logs |= {name: sum(means) / len(means) for name, means in steps.items()}
            logs["num_tokens"] = float(self.trained_tokens)
        super().log(logs, start_time)  # type: ignore[misc]


class _MicroBatches(torch.utils.data.Dataset):
    """Rows by the list of slots that share a micro-batch."""

    def __init__(self, rows: Rows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, slots: list[Slot]) -> list[dict[str, Any]]:
        return [self.rows[slot] for slot in slots]
