"""Which prompts a step answers: whole steps in an order that follows from the seed, whatever the number of workers."""

from __future__ import annotations

import numpy as np
import pytest

from zephyr_ray.training.prompt_plan import PromptPlan, PromptRankPlan, draw_seed, largest_divisor
from zephyr_ray.training.sampler import Plan


def test_a_step_that_an_epoch_ends_in_is_filled_from_the_next_epoch() -> None:
    plan, epochs = PromptPlan(rows=5, global_batch=4, epochs=2, seed=3), Plan(5, 5, 3, 3)
    order = np.concatenate([epochs.step_rows(epoch) for epoch in range(3)])
    assert plan.steps == 3  # of 4 prompts: two epochs have 10
    assert [plan.step_rows(step).tolist() for step in range(3)] == order[:12].reshape(3, 4).tolist()
    assert plan.times_seen().tolist() == np.bincount(order[:12], minlength=5).tolist()
    assert sorted(order[:5]) == [0, 1, 2, 3, 4]


def test_a_step_may_have_more_prompts_than_there_are() -> None:
    plan = PromptPlan(rows=2, global_batch=5, epochs=1, seed=0)
    (first,) = [plan.step_rows(step) for step in range(plan.steps)]
    assert sorted(first[:4]) == [0, 0, 1, 1]
    assert len(first) == 5


def test_iterations_repeat_a_steps_prompts() -> None:
    once, twice = (PromptPlan(8, 4, 1, 0, None, iterations) for iterations in (1, 2))
    assert (once.steps, twice.steps) == (2, 4)
    assert [twice.step_rows(step).tolist() for step in range(4)] == [
        once.step_rows(step).tolist() for step in (0, 0, 1, 1)
    ]
    assert twice.times_seen().tolist() == [2] * 8


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
def test_workers_share_a_steps_prompts_and_each_completes_its_own(workers: int) -> None:
    plan = PromptPlan(rows=20, global_batch=6, epochs=2, seed=1)
    completions = 4
    size = largest_divisor(6 // workers * completions, 5)
    ranks = [PromptRankPlan(plan, rank, workers, size, completions) for rank in range(workers)]
    for step in range(plan.steps):
        answered = []
        for rank in ranks:
            micro_batches = rank.step(step)
            assert len(micro_batches) * size == len(micro_batches[0])  # TRL deals each draw out to all of them
            assert all(batch == micro_batches[0] for batch in micro_batches)
            rows = [slot.row for slot in micro_batches[0]]
            assert rows == np.repeat(rows[::completions], completions).tolist()
            answered += rows[::completions]
        assert answered == plan.step_rows(step).tolist()
    assert len(ranks[0]) == len(list(ranks[0]))


@pytest.mark.parametrize(("count", "most", "size"), [(24, 8, 8), (24, 7, 6), (7, 4, 1), (6, 100, 6)])
def test_micro_batches_by_hand(count: int, most: int, size: int) -> None:
    assert largest_divisor(count, most) == size


def test_every_step_and_worker_draws_other_numbers() -> None:
    seeds = {draw_seed(seed, step, rank) for seed in range(3) for step in range(4) for rank in range(2)}
    assert len(seeds) == 24
