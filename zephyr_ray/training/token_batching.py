"""Micro-batches by tokens: which of a step's pairs share a row of tokens, on which worker.

A micro-batch is one row of tokens without padding (`packed.layout`), so what bounds its memory is tokens, not pairs.
The number of micro-batches differs from step to step; every rank has the same number of them, because sharded training
gathers weights in step. The partition is a pure function of the step's rows and their lengths: every rank computes all
of it and takes its part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zephyr_ray.training.sampler import Plan, Slot

Bins = list[list[int]]


@dataclass(frozen=True)
class PackedRankPlan:
    """The micro-batches of one rank, a list of them for each optimizer step.

    Attributes:
        lengths: Tokens of each row laid out once: prompt + all its completions (int64, by row number).
        budget: Most tokens of a micro-batch. A row that is larger has a micro-batch of its own.
        weights: How many items a row brings to the step's mean (int64, by row number); None: one each.
    """

    plan: Plan
    rank: int
    world_size: int
    lengths: np.ndarray
    budget: int
    weights: np.ndarray | None = None

    micro_batches_per_step = 1  # as the trainer sees it: a step's micro-batches arrive together

    def __len__(self) -> int:
        return self.plan.steps

    def __iter__(self) -> Iterator[list[list[Slot]]]:
        for step in range(self.plan.steps):
            yield self.step(step)

    def step(self, step: int) -> list[list[Slot]]:
        """This rank's micro-batches of an optimizer step, at least one."""
        rows = np.sort(self.plan.step_rows(step))
        parts = partition(self.lengths[rows].tolist(), self.world_size, self.budget)[self.rank]
        filler = Slot(int(rows[np.argmin(self.lengths[rows])]), 0.0)
        weights = np.ones(len(rows), dtype=np.int64) if self.weights is None else self.weights[rows]
        scale = self.world_size / int(weights.sum())
        return [[Slot(int(rows[index]), weights[part].sum() * scale) for index in part] or [filler] for part in parts]


def rounded_up(lengths: np.ndarray, multiple: int) -> np.ndarray:
    """Tokens that items take where each of them is filled up to a multiple."""
    return -(-lengths // multiple) * multiple


def partition(lengths: Sequence[int], world_size: int, budget: int) -> list[Bins]:
    """Distributes items over ranks and their micro-batches.

    Args:
        lengths: Tokens of each item.
        world_size: Ranks.
        budget: Most tokens of a micro-batch; a larger item is alone in its own.

    Returns:
        For each rank the same number of micro-batches (at least one), each a list of indices into `lengths`. Some are
        empty where there are fewer items than micro-batches.
    """
    descending = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    tight = _first_fit(lengths, descending, budget)
    count = math.ceil(len(tight) / world_size) * world_size
    bins = _level(lengths, descending, budget, count) or tight + [[] for _ in range(count - len(tight))]
    return _deal(lengths, bins, world_size)


def _first_fit(lengths: Sequence[int], descending: list[int], budget: int) -> Bins:
    """Few bins: each item into the first one with room (first-fit decreasing, at most 11/9 of the fewest + 1)."""
    bins: Bins = []
    loads: list[int] = []
    for index in descending:
        place = next((i for i, load in enumerate(loads) if load + lengths[index] <= budget), len(bins))
        if place == len(bins):
            bins.append([])
            loads.append(0)
        bins[place].append(index)
        loads[place] += lengths[index]
    return bins


def _level(lengths: Sequence[int], descending: list[int], budget: int, count: int) -> Bins | None:
    """Equal bins: each item into the emptiest one. None where that breaks the budget (then first-fit's bins serve)."""
    bins: Bins = [[] for _ in range(count)]
    loads = [0] * count
    for index in descending:
        place = loads.index(min(loads))
        if loads[place] and loads[place] + lengths[index] > budget:
            return None
        bins[place].append(index)
        loads[place] += lengths[index]
    return bins


def _deal(lengths: Sequence[int], bins: Bins, world_size: int) -> list[Bins]:
    """The fullest bins go round the ranks first, back and forth: ranks are level in sum and at each micro-batch."""
    fullest_first = sorted(bins, key=lambda part: (-sum(lengths[index] for index in part), part))
    ranks: list[Bins] = [[] for _ in range(world_size)]
    for start in range(0, len(bins), world_size):
        turn = fullest_first[start : start + world_size]
        for rank, part in zip(ranks, turn if start // world_size % 2 == 0 else reversed(turn), strict=True):
            rank.append(part)
    return ranks
