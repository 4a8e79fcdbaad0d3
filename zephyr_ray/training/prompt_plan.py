"""The plan of a training on a model's own completions: which prompts each optimizer step answers, on which worker.

The order of the prompts is a pure function of (seed, epoch, position), and a step answers the same prompts whatever the
number of workers. A prompt's completions are drawn by one worker, from random numbers that follow from (seed, step,
worker): so another number of workers draws others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zephyr_ray.training.sampler import Plan, RankPlan, Slot


@dataclass(frozen=True)
class PromptPlan(Plan):
    """As `Plan`, but every step has `global_batch` prompts: where an epoch ends within one, the next begins in it.

    A step with fewer would weigh its prompts more, and TRL's trainers draw as many completions in each.
    """

    iterations: int = 1
    """Optimizer steps on the same completions (TRL's num_iterations, the paper's mu)."""

    @cached_property
    def steps(self) -> int:
        if self.max_steps is not None:
            return self.max_steps
        return math.ceil(self.epochs * self.rows / self.global_batch) * self.iterations

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.global_batch) * self.iterations

    def step_rows(self, step: int) -> np.ndarray:
        """The prompts of an optimizer step (int64, `global_batch` of them), in order."""
        first = step // self.iterations * self.global_batch
        epochs = range(first // self.rows, (first + self.global_batch - 1) // self.rows + 1)
        begin = first - epochs[0] * self.rows
        return np.concatenate([self.order(epoch) for epoch in epochs])[begin : begin + self.global_batch]

    def times_seen(self) -> np.ndarray:
        """How many optimizer steps of the whole run each prompt is in (int64 of length `rows`)."""
        steps = [self.step_rows(step) for step in range(self.steps)]
        return np.bincount(np.concatenate(steps), minlength=self.rows)


@dataclass(frozen=True)
class PromptRankPlan(RankPlan):
    """The completions of one rank: `completions` of each of its prompts, one after the other.

    TRL's trainers take the whole step's prompts with each micro-batch, draw with the first, and deal the completions
    out to all of them. `micro_batch` divides the rank's completions (`largest_divisor`).
    """

    completions: int

    @property
    def micro_batches_per_step(self) -> int:
        return self.plan.global_batch // self.world_size * self.completions // self.micro_batch

    def step(self, step: int) -> list[list[Slot]]:
        """The rank's prompts of an optimizer step, each `completions` times, as often as there are micro-batches."""
        share = self.plan.global_batch // self.world_size
        mine = self.plan.step_rows(step)[self.rank * share : (self.rank + 1) * share]
        slots = [Slot(int(row), 1.0) for row in np.repeat(mine, self.completions)]
        return [slots] * self.micro_batches_per_step


def largest_divisor(count: int, most: int) -> int:
    """The largest number up to `most` that divides `count`."""
    return next(size for size in range(min(count, most), 0, -1) if count % size == 0)


def draw_seed(seed: int, step: int, rank: int) -> int:
    """Seeds the random numbers of a worker's completions of an optimizer step: a training that was interrupted draws
    the same ones."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
