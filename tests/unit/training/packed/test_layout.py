"""The layout of a packed row: who sees whom, what predicts what, which positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.masking_utils import sliding_window_overlay

from zephyr_ray.training.packed.blocks import BLOCK, mask_mod, seen_keys, visible_blocks
from zephyr_ray.training.packed.layout import pack, visible

tokens = st.lists(st.integers(3, 99), min_size=1, max_size=9)
groups = st.lists(
    st.tuples(tokens, st.lists(st.lists(st.integers(3, 99), max_size=7), max_size=4)), min_size=1, max_size=4
)


def test_a_row_by_hand() -> None:
    row = pack([[1, 2], [8]], [[[3, 4], [5]], [[9, 9]]])
    assert row.tokens.tolist() == [[1, 2, 3, 4, 5, 8, 9, 9]]
    assert row.positions.tolist() == [[0, 1, 2, 3, 2, 0, 1, 2]]
    assert row.predictors.tolist() == [1, 2, 1, 5, 6]
    assert row.targets.tolist() == [[3, 4, 5, 9, 9]]
    assert (row.branch.tolist(), row.offset.tolist()) == ([0, 0, 1, 2, 2], [0, 1, 0, 0, 1])
    assert visible(row.segments).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1, 1, 1],
    ]
    assert visible(row.segments, window=2).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0, 1, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
    ]


@given(groups, st.none() | st.integers(1, 9))
def test_every_token_sees_its_prompt_and_its_own_branch(parts: list, window: int | None) -> None:
    """Read off the visible tokens, in order of positions, every completion token has its sequence before it, or as much
    of it as transformers' rule of windows leaves."""
    row = pack([prompt for prompt, _ in parts], [branches for _, branches in parts])
    seen, ids, places = visible(row.segments, window), row.tokens[0], row.positions[0]
    sequences = [prompt + branch for prompt, branches in parts for branch in branches]
    prompts = [prompt for prompt, branches in parts for _ in branches]
    for predictor, target, branch, offset in zip(row.predictors, row.targets[0], row.branch, row.offset, strict=True):
        sequence, length = sequences[branch], len(prompts[branch]) + int(offset)
        in_window = sliding_window_overlay(window or length)
        expected = [place for place in range(length) if in_window(0, 0, length - 1, place)]
        assert ids[seen[predictor]].tolist() == [sequence[place] for place in expected]
        assert places[seen[predictor]].tolist() == expected
        assert int(target) == sequence[length]
    assert len(row.predictors) == sum(len(branch) for _, branches in parts for branch in branches)


@given(groups, st.integers(1, 20))
def test_a_row_is_filled_up_to_a_multiple(parts: list, multiple: int) -> None:
    prompts, branches = [prompt for prompt, _ in parts], [group for _, group in parts]
    plain, filled = pack(prompts, branches), pack(prompts, branches, multiple)
    length = plain.tokens.shape[1]
    assert filled.tokens.shape[1] % multiple == 0
    assert filled.tokens.shape[1] - length < multiple
    assert torch.equal(visible(filled.segments)[:length, :length], visible(plain.segments))
    assert not visible(filled.segments)[:length, length:].any()
    assert torch.equal(filled.predictors, plain.predictors)
    assert filled.branch_lengths[: len(plain.branch_lengths)] == plain.branch_lengths


def test_an_empty_prompt_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        pack([[]], [[[1]]])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.lists(st.integers(0, 300), max_size=3)), min_size=1, max_size=4),
    st.none() | st.integers(1, 700),
)
def test_blocks_are_those_of_the_dense_rule(lengths: list, window: int | None) -> None:
    """No block is computed in which no token pair is visible, and only full ones are not looked at pair by pair."""
    row = pack([[1] * prompt for prompt, _ in lengths], [[[2] * n for n in group] for _, group in lengths], BLOCK)
    dense, seen = visible(row.segments, window), seen_keys(row.segments, window)
    count = len(dense) // BLOCK
    blocks = dense.view(count, BLOCK, count, BLOCK).transpose(1, 2).flatten(2)
    some, every = visible_blocks(seen)
    assert (blocks.any(-1).numpy() == some).all()
    assert (blocks.all(-1).numpy() == every).all()
    place = torch.arange(len(dense))
    assert torch.equal(mask_mod(seen, "cpu")(0, 0, place[:, None], place), dense)


def test_prompts_start_where_they_are_told_to() -> None:
    row = pack([[1, 2], [3], [4] * 5], [[[5], [6, 7]], [[8]], [[9] * 3]], multiple=16, align=4)
    starts = [segment.start for segment in row.segments if segment.branches]
    assert starts == [0, 8, 12]
    assert row.tokens.shape[1] == 32
    plain = pack([[1, 2], [3], [4] * 5], [[[5], [6, 7]], [[8]], [[9] * 3]])
    for name in ("targets", "branch", "offset"):
        assert torch.equal(getattr(row, name), getattr(plain, name))
    for name in ("tokens", "positions"):
        ours, theirs = (getattr(each, name)[0, each.predictors] for each in (row, plain))
        assert torch.equal(ours, theirs)
