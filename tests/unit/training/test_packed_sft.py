"""Packed SFT against the padded trainer on the same dialogues in the same order, in float32."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from trl import SFTConfig

from tests.unit.training.small_models import make_dialogues, make_model
from zephyr_ray.training.dataset import IGNORED, Rows
from zephyr_ray.training.sampler import Plan, RankPlan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trainers.sft import PackedSFTTrainer, PlannedSFTTrainer, collate_dialogues, pack_dialogues

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH, STEPS = 6, 12
LEARNT_IN_BOTH = ("loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens", "learning_rate")


DIALOGUES = make_dialogues(20)  # an epoch of four steps, the last one of two dialogues
PLAN = Plan(len(DIALOGUES), BATCH, epochs=1, seed=0, max_steps=STEPS)


def train(folder: Path, tokenizer: Any, loss_on: Any, budget: int | None, **options: Any) -> list[dict[str, float]]:
    """What is logged at each step, with a token budget or (None) padded."""
    table = datasets.Dataset.from_list(DIALOGUES)
    args = SFTConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        gradient_checkpointing=False,
        learning_rate=1e-3,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        **options,
    )
    kind = PlannedSFTTrainer if budget is None else PackedSFTTrainer
    trainer = kind(model=make_model("mistral"), args=args, train_dataset=table, processing_class=tokenizer)
    rows = Rows(table, np.arange(len(DIALOGUES)), loss_on=loss_on)
    plan = RankPlan(PLAN, 0, 1, BATCH) if budget is None else PackedRankPlan(PLAN, 0, 1, rows.packed_lengths(), budget)
    trainer.follow(rows, plan)
    trainer.train()
    assert trainer.seen.tolist() == PLAN.times_seen().tolist()
    return [row for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("loss_on", ["all", "assistant"])
def test_every_budget_logs_the_padded_run(tmp_path: Path, tokenizer: Any, loss_on: str) -> None:
    padded = train(tmp_path, tokenizer, loss_on, None)
    assert padded[0]["loss"] - padded[-1]["loss"] > 0.1
    for budget in (1, 90, 10_000):
        packed = train(tmp_path, tokenizer, loss_on, budget)
        for name in LEARNT_IN_BOTH:
            ours, theirs = ([row[name] for row in run] for run in (packed, padded))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=f"{name}, budget {budget}")


def test_dynamic_fine_tuning_logs_the_padded_run(tmp_path: Path, tokenizer: Any) -> None:
    padded, packed = (train(tmp_path, tokenizer, "all", budget, loss_type="dft") for budget in (None, 90))
    for name in LEARNT_IN_BOTH:
        ours, theirs = ([row[name] for row in run] for run in (packed, padded))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_row_holds_dialogues_and_their_labels() -> None:
    first = {"input_ids": [5, 6, 7], "labels": [IGNORED, 6, IGNORED]}
    row = pack_dialogues([first, {"input_ids": [8, 9], "labels": [8, 9]}])
    assert row.tokens.tolist() == [[5, 6, 7, 8, 9]]
    assert row.positions.tolist() == [[0, 1, 2, 0, 1]]
    assert row.targets.tolist() == [[6, 9]]
    assert row.predictors.tolist() == [0, 3]
    assert (row.branch.tolist(), row.offset.tolist()) == ([0, 1], [0, 0])


def test_a_filler_learns_nothing() -> None:
    filler = {"input_ids": [5, 6, 7], "labels": [5, 6, 7], "loss_scale": 0.0, "row": 0}
    batch = collate_dialogues([filler])
    assert batch["packed_row"].tokens.tolist() == [[5, 6, 7]]
    assert batch["packed_row"].targets.shape == (1, 0)
    assert batch["num_tokens"] == 0


def test_a_dialogue_of_one_token_is_kept() -> None:
    row = pack_dialogues([{"input_ids": [5], "labels": [5]}, {"input_ids": [6, 7], "labels": [6, 7]}])
    assert (row.tokens.tolist(), row.targets.tolist()) == ([[5, 6, 7]], [[7]])
    assert torch.equal(row.predictors, torch.tensor([1]))
