"""The reward model on packed rows against TRL's own trainer, and against a plain loop, in float32."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid
from trl import RewardConfig, RewardTrainer

from tests.unit.training.small_models import CONFIGS, make_classifier, make_pairs
from tests.unit.training.trl_options import OPTIONS
from zephyr_ray.training.bradley_terry import bradley_terry_loss
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.methods.reward_model import RewardModel
from zephyr_ray.training.packed.layout import pack_pairs
from zephyr_ray.training.packed.rewards import add_packed_rewards, branch_ends
from zephyr_ray.training.sampler import Plan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trainers.reward_model import PackedRewardTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH, STEPS, CENTRING = 6, 50, 0.05
PAIRS = make_pairs(20, 1)  # an epoch of four steps, the last one of two pairs
MARGINS = [0.1 * (number % 5) for number in range(len(PAIRS))]
for pair in PAIRS[4:9]:
    pair["chosen_ids"].append(2)  # which ends with the end-of-sequence token: the template has more to say
PLAN = Plan(len(PAIRS), BATCH, epochs=1, seed=0, max_steps=STEPS)
LOGGED = ("loss", "grad_norm", "mean_reward", "accuracy", "margin", "num_tokens")
SETTINGS: dict[str, Any] = {
    **OPTIONS,
    "learning_rate": 3e-4,
    "max_steps": STEPS,
    "per_device_train_batch_size": BATCH,
    "max_length": None,
    "center_rewards_coefficient": CENTRING,
}


def whole(pair: dict[str, list[int]], ending: list[int]) -> dict[str, Any]:
    """Both conversations as TRL takes them."""
    each = {name: pair["prompt_ids"] + pair[name] for name in ("chosen_ids", "rejected_ids")}
    return {name: ids + ending if ids[-1] == 2 else ids for name, ids in each.items()}


class PlainTRL(RewardTrainer):
    """TRL's own trainer and loss. Only its data are ours: it gets a step's pairs as one padded batch."""

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        rows: Any = self.train_dataset
        steps = [[rows[int(row)] for row in PLAN.step_rows(step)] for step in range(STEPS)]
        ends = np.cumsum([len(step) for step in steps])
        batches = np.split(np.arange(ends[-1]), ends[:-1])
        return torch.utils.data.DataLoader(
            list(itertools.chain(*steps)), batch_sampler=batches, collate_fn=self.data_collator
        )


def run_trl(folder: Path, tokenizer: Any, with_margins: bool) -> list[dict[str, float]]:
    ending = tokenizer("\n", add_special_tokens=False)["input_ids"]
    rows = [whole(pair, ending) for pair in PAIRS]
    if with_margins:
        rows = [row | {"margin": margin} for row, margin in zip(rows, MARGINS, strict=True)]
    args = RewardConfig(output_dir=str(folder), **SETTINGS)
    table = datasets.Dataset.from_list(rows)
    trainer = PlainTRL(model=make_classifier("mistral"), args=args, train_dataset=table, processing_class=tokenizer)
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


def run_packed(folder: Path, tokenizer: Any, budget: int, with_margins: bool) -> list[dict[str, float]]:
    table = datasets.Dataset.from_list(PAIRS)
    args = RewardConfig(output_dir=str(folder), **SETTINGS)
    trainer: Any = PackedRewardTrainer(
        model=make_classifier("mistral"), args=args, train_dataset=table, processing_class=tokenizer
    )
    trainer.section = RewardModel()
    rows = Rows(table, np.arange(len(PAIRS)), {"margin": np.array(MARGINS)} if with_margins else None)
    trainer.follow(rows, PackedRankPlan(PLAN, 0, 1, rows.packed_lengths(), budget))
    longest = max(
        sum(rows.packed_lengths()[slot.row] + 2 * len(trainer.ending) for slot in batch)
        for step in range(4)
        for batch in trainer.rank_plan.step(step)
        if len(batch) > 1
    )
    assert longest <= budget
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize(("budget", "with_margins"), [(90, True), (1000, True), (1000, False)])
def test_fifty_steps_equal_trls(tmp_path: Path, tokenizer: Any, budget: int, with_margins: bool) -> None:
    """In TRL a step is one micro-batch; here it is one or several."""
    theirs = run_trl(tmp_path / "trl", tokenizer, with_margins)
    ours = run_packed(tmp_path / "ours", tokenizer, budget, with_margins)
    assert len(ours) == len(theirs) == STEPS
    for name in LOGGED:
        np.testing.assert_allclose(
            [row[name] for row in ours], [row[name] for row in theirs], rtol=1e-4, atol=1e-4, err_msg=name
        )
    assert ours[-1]["loss"] < 0.5 * ours[0]["loss"]


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_rewards_and_gradients_are_those_of_transformers(family: str) -> None:
    """Of each conversation alone, in every kind of attention."""
    model, ours = make_classifier(family, "eager"), make_classifier(family)  # transformers' sdpa leaves out soft caps
    add_packed_rewards(ours, "sdpa")
    row = pack_pairs(PAIRS[:6])
    packed = ours(packed_row=row, ends=branch_ends(row))
    alone = torch.cat(
        [
            model(torch.tensor([pair["prompt_ids"] + pair[name]])).logits[:, 0]
            for pair in PAIRS[:6]
            for name in ("chosen_ids", "rejected_ids")
        ]
    )
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)
    signs = torch.tensor([1.0, -1.0]).repeat(6)
    (packed * signs).sum().backward()
    (alone * signs).sum().backward()
    for (name, one), other in zip(ours.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_the_loss_by_hand() -> None:
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    assert bradley_terry_loss(chosen, rejected).tolist() == pytest.approx([0.313262, 1.313262], abs=1e-5)
    margin = torch.tensor([1.0, 0.0])
    assert bradley_terry_loss(chosen, rejected, margin).tolist() == pytest.approx([0.693147, 1.313262], abs=1e-5)
    centred = bradley_terry_loss(chosen, rejected, None, 0.1)
    assert centred.tolist() == pytest.approx([0.313262 + 0.9, 1.313262 + 0.1], abs=1e-5)
    assert float(-logsigmoid(torch.tensor(1.0))) == pytest.approx(0.313262, abs=1e-5)
