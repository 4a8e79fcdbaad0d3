"""The packed plan: every pair once, within the budget, the same number of micro-batches on every rank, level."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.training.sampler import Plan
from zephyr_ray.training.token_batching import PackedRankPlan, partition, rounded_up

lengths_of = st.lists(st.integers(1, 120), min_size=1, max_size=40)


@given(lengths_of, st.integers(1, 5), st.integers(1, 200))
def test_every_item_once_and_within_the_budget(lengths: list[int], world_size: int, budget: int) -> None:
    ranks = partition(lengths, world_size, budget)
    assert len(ranks) == world_size
    assert len({len(rank) for rank in ranks}) == 1
    assert len(ranks[0]) >= 1
    bins = [part for rank in ranks for part in rank]
    assert sorted(index for part in bins for index in part) == list(range(len(lengths)))
    for part in bins:
        assert sum(lengths[index] for index in part) <= budget or len(part) == 1
    assert ranks == partition(lengths, world_size, budget)


@given(lengths_of, st.integers(1, 5), st.integers(120, 400))
def test_no_more_micro_batches_than_half_full_ones_need(lengths: list[int], world_size: int, budget: int) -> None:
    """Of first-fit's bins at most one is half empty or more."""
    count = len(partition(lengths, world_size, budget)[0]) * world_size
    assert count <= 2 * sum(lengths) / budget + world_size


@given(st.lists(st.integers(20, 60), min_size=32, max_size=64), st.sampled_from([1, 2, 4]), st.integers(150, 400))
def test_ranks_are_level(lengths: list[int], world_size: int, budget: int) -> None:
    sums = [sum(lengths[i] for part in rank for i in part) for rank in partition(lengths, world_size, budget)]
    assert max(sums) - min(sums) <= 2 * max(lengths)


plans = st.builds(
    Plan,
    rows=st.integers(1, 40),
    global_batch=st.integers(1, 24),
    epochs=st.sampled_from([0.5, 1.0, 1.7]),
    seed=st.integers(0, 3),
    max_steps=st.one_of(st.none(), st.integers(1, 6)),
)


@given(plans, st.integers(1, 4), st.integers(1, 300), st.integers(0, 9))
def test_ranks_share_each_step_and_its_loss(plan: Plan, world_size: int, budget: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses, lengths = rng.normal(size=plan.rows), rng.integers(3, 150, size=plan.rows)
    ranks = [PackedRankPlan(plan, rank, world_size, lengths, budget) for rank in range(world_size)]
    for step in range(plan.steps):
        rows = plan.step_rows(step)
        batches = [rank.step(step) for rank in ranks]
        assert len({len(part) for part in batches}) == 1
        real = [slot.row for part in batches for batch in part for slot in batch if slot.loss_scale > 0]
        assert sorted(real) == sorted(rows)
        by_rank = [sum(np.mean([losses[s.row] for s in b]) * b[0].loss_scale for b in part) for part in batches]
        assert np.mean(by_rank) == pytest.approx(losses[rows].mean())
    assert [len(rank) for rank in ranks] == [plan.steps] * world_size


def test_a_step_does_not_depend_on_the_order_of_its_rows() -> None:
    lengths = np.array([9, 4, 4, 7, 4, 9, 2, 3])
    steps = {tuple(Plan(8, 8, 1, seed).step_rows(0)) for seed in range(5)}
    plans_of = [PackedRankPlan(Plan(8, 8, 1, seed), 0, 2, lengths, 12).step(0) for seed in range(5)]
    assert len(steps) == 5
    assert all(plan == plans_of[0] for plan in plans_of)


def test_a_partition_by_hand() -> None:
    # 11, 6 + 5 and 4 + 4 + 2 would fit in three; two ranks need four: 11, 4 + 4, 5 + 2 and 6 tokens, dealt 11 8 | 6 7
    assert partition([6, 4, 11, 5, 4, 2], world_size=2, budget=11) == [[[2], [0]], [[1, 4], [3, 5]]]


def test_an_oversized_item_is_alone() -> None:
    assert partition([30, 2, 3], world_size=1, budget=10) == [[[0], [2, 1]]]


def test_lengths_are_rounded_up_to_blocks() -> None:
    assert rounded_up(np.array([1, 127, 128, 129]), 128).tolist() == [128, 128, 128, 256]
