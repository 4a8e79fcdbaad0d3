"""The plan: every row exactly once an epoch, the same steps on any number of workers, a loss over exactly the step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.training.sampler import Plan, RankPlan

plans = st.builds(
    Plan,
    rows=st.integers(1, 60),
    global_batch=st.integers(1, 24),
    epochs=st.sampled_from([0.5, 1.0, 1.7, 3.0]),
    seed=st.integers(0, 3),
    max_steps=st.one_of(st.none(), st.integers(1, 12)),
)


@given(plans)
def test_every_row_once_an_epoch(plan: Plan) -> None:
    for epoch in range(2):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        rows = np.concatenate([plan.step_rows(step) for step in steps])
        assert sorted(rows) == list(range(plan.rows))


@given(plans)
def test_times_seen_counts_the_steps(plan: Plan) -> None:
    counts = np.zeros(plan.rows, dtype=int)
    for step in range(plan.steps):
        np.add.at(counts, plan.step_rows(step), 1)
    assert np.array_equal(counts, plan.times_seen())


@given(plans, st.integers(1, 5), st.integers(1, 7))
def test_ranks_share_each_step_and_its_loss(plan: Plan, world_size: int, micro_batch: int) -> None:
    losses = np.random.default_rng(0).normal(size=plan.rows)
    ranks = [RankPlan(plan, rank, world_size, micro_batch) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    for step in range(plan.steps):
        rows = plan.step_rows(step)
        batches = [rank.step(step) for rank in ranks]
        assert {len(part) for part in batches} == {ranks[0].micro_batches_per_step}
        real = [slot.row for part in batches for batch in part for slot in batch if slot.loss_scale > 0]
        assert sorted(real) == sorted(rows)
        assert all(len(batch) <= micro_batch for part in batches for batch in part)
        by_rank = [
            sum(np.mean([losses[slot.row] for slot in batch]) * batch[0].loss_scale for batch in part)
            for part in batches
        ]
        assert np.mean(by_rank) == pytest.approx(losses[rows].mean())


def test_order_depends_on_seed_and_epoch_alone() -> None:
    a, b = Plan(10, 4, 2, seed=1), Plan(10, 5, 2, seed=1)
    assert list(np.concatenate([a.step_rows(s) for s in range(3)])) == list(
        np.concatenate([b.step_rows(s) for s in range(2)])
    )
    assert list(a.step_rows(0)) != list(a.step_rows(3))
    assert list(a.step_rows(0)) != list(Plan(10, 4, 2, seed=2).step_rows(0))


def test_steps_by_hand() -> None:
    plan = Plan(rows=10, global_batch=4, epochs=2, seed=0)
    assert (plan.steps_per_epoch, plan.steps) == (3, 6)
    assert [len(plan.step_rows(step)) for step in range(6)] == [4, 4, 2, 4, 4, 2]
    # two ranks, micro-batches of one: four rows make two micro-batches a rank, two rows one and a filler
    rank = RankPlan(plan, rank=1, world_size=2, micro_batch=1)
    assert [[slot.loss_scale for slot in batch] for batch in rank.step(0)] == [[0.5], [0.5]]
    assert [[slot.loss_scale for slot in batch] for batch in rank.step(2)] == [[1.0], [0.0]]


def test_a_plan_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Plan(0, 4, 1, 0)
