"""The batch sampler: which rows each optimizer step takes, on which worker.

The order of the rows is a pure function of (seed, epoch, position), and a step takes the same rows whatever the number
of workers or the size of a micro-batch. So one worker and eight give the same training run, and resuming needs no more
than the number of the next step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np


class Slot(NamedTuple):
    """One row of a micro-batch.

    `loss_scale` turns the micro-batch's mean loss into its share of the step's: summed over a rank's micro-batches and
    averaged over ranks, the losses give the mean over exactly the step's rows. It is 0 for a filler row, which only
    keeps the ranks in step. `epoch` is counted from 0, where a row meets another one in each (`partners`).
    """

    row: int
    loss_scale: float
    epoch: int = 0


@dataclass(frozen=True)
class Plan:
    """All optimizer steps of a run. The last step of an epoch takes the rows that are left."""

    rows: int
    global_batch: int
    epochs: float
    seed: int
    max_steps: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError("a plan needs at least one row")

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.global_batch)

    @cached_property
    def steps(self) -> int:
        by_epochs = math.ceil(self.epochs * self.steps_per_epoch)
        return by_epochs if self.max_steps is None else self.max_steps

    def order(self, epoch: int) -> np.ndarray:
        """All rows in the order of an epoch (int64)."""
        return _permutation(self.rows, self.seed, epoch)

    def step_rows(self, step: int) -> np.ndarray:
        """The rows of an optimizer step (int64, at most `global_batch` of them), in order."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return self.order(epoch)[within * self.global_batch : (within + 1) * self.global_batch]

    def times_seen(self) -> np.ndarray:
        """How often the whole run trains on each row (int64 of length `rows`)."""
        full, rest = divmod(self.steps, self.steps_per_epoch)
        counts = np.full(self.rows, full, dtype=np.int64)
        counts[self.order(full)[: rest * self.global_batch]] += 1
        return counts


def partners(plan: Plan) -> np.ndarray:
    """Of each row the one before it in its step, and of a step's first row the last (int64 [epochs, rows]).

    An epoch that ends early is counted whole. A step of a single row has no other than itself.
    """
    found = np.empty((math.ceil(plan.steps / plan.steps_per_epoch), plan.rows), dtype=np.int64)
    for step in range(len(found) * plan.steps_per_epoch):
        rows = plan.step_rows(step)
        found[step // plan.steps_per_epoch, rows] = np.roll(rows, 1)
    return found


@dataclass(frozen=True)
class RankPlan:
    """The micro-batches of one rank: the same number of them in every step and on every rank."""

    plan: Plan
    rank: int
    world_size: int
    micro_batch: int

    @property
    def micro_batches_per_step(self) -> int:
        """Gradient accumulation steps."""
        rows_per_rank = math.ceil(min(self.plan.global_batch, self.plan.rows) / self.world_size)
        return math.ceil(rows_per_rank / self.micro_batch)

    def __len__(self) -> int:
        return self.plan.steps * self.micro_batches_per_step

    def __iter__(self) -> Iterator[list[Slot]]:
        for step in range(self.plan.steps):
            yield from self.step(step)

    def step(self, step: int) -> list[list[Slot]]:
        """This rank's micro-batches of an optimizer step."""
        rows = self.plan.step_rows(step)
        mine = rows[self.rank :: self.world_size]
        batches = []
        for start in range(0, self.micro_batches_per_step * self.micro_batch, self.micro_batch):
            part = mine[start : start + self.micro_batch]
            scale = len(part) * self.world_size / len(rows)
            batches.append([Slot(int(row), scale) for row in part] or [Slot(int(rows[0]), 0.0)])
        return batches


@lru_cache(maxsize=4)
def _permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    order.flags.writeable = False
    return order
