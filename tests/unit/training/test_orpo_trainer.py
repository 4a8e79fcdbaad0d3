"""ORPO on packed rows against TRL's own trainer, and against a plain loop, in float32."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid
from trl import DPOConfig
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.experimental.utils import DPODataCollatorWithPadding

from tests.unit.training.small_models import make_model, make_pairs
from tests.unit.training.trl_options import OPTIONS
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.methods.orpo import ORPO
from zephyr_ray.training.packed.layout import pack_pairs, scoring_prompts
from zephyr_ray.training.sampler import Plan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trainers.orpo import PackedORPOTrainer

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::trl.experimental.TRLExperimentalWarning"),
]

BATCH, STEPS, BETA = 6, 50, 0.4
PAIRS = make_pairs(20, 1)  # an epoch of four steps, the last one of two pairs
PLAN = Plan(len(PAIRS), BATCH, epochs=1, seed=0, max_steps=STEPS)
LOGGED = (
    "loss",
    "grad_norm",
    "nll_loss",
    "log_odds_chosen",
    "log_odds_ratio",
    "logps/chosen",
    "logps/rejected",
    "rewards/margins",
    "rewards/accuracies",
)
SETTINGS = {**OPTIONS, "max_steps": STEPS, "per_device_train_batch_size": BATCH}


class PlainTRL(ORPOTrainer):
    """TRL's own trainer and loss. Only its data are ours: it gets a step's pairs as one padded batch."""

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        steps = [[features(PAIRS[row]) for row in PLAN.step_rows(step)] for step in range(STEPS)]
        ends = np.cumsum([len(step) for step in steps])
        batches = np.split(np.arange(ends[-1]), ends[:-1])
        collator = DPODataCollatorWithPadding(pad_token_id=0)
        return torch.utils.data.DataLoader(list(itertools.chain(*steps)), batch_sampler=batches, collate_fn=collator)


def features(pair: dict[str, list[int]]) -> dict[str, list[int]]:
    """What TRL's collator takes."""
    prompt = pair["prompt_ids"]
    found: dict[str, list[int]] = {}
    for side in ("chosen", "rejected"):
        ids = prompt + pair[f"{side}_ids"]
        labels = [-100] * len(prompt) + pair[f"{side}_ids"]
        found |= {f"{side}_input_ids": ids, f"{side}_attention_mask": [1] * len(ids), f"{side}_labels": labels}
    return found | {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}


def run_trl(folder: Path, tokenizer: Any) -> list[dict[str, float]]:
    args = ORPOConfig(output_dir=str(folder), beta=BETA, max_length=512, **SETTINGS)
    table = datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * len(PAIRS))
    trainer = PlainTRL(model=make_model("mistral"), args=args, train_dataset=table, processing_class=tokenizer)
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


def run_packed(folder: Path, tokenizer: Any, nll_on: Any, budget: int, steps: int = STEPS) -> list[dict[str, float]]:
    table = datasets.Dataset.from_list(PAIRS)
    args = DPOConfig(
        output_dir=str(folder), max_length=None, precompute_ref_log_probs=True, **SETTINGS | {"max_steps": steps}
    )
    trainer = PackedORPOTrainer(make_model("mistral"), args=args, train_dataset=table, processing_class=tokenizer)
    trainer.section = ORPO(beta=BETA, nll_on=nll_on)
    rows = Rows(table, np.arange(len(PAIRS)))
    trainer.follow(rows, PackedRankPlan(PLAN, 0, 1, rows.packed_lengths(), budget))
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("budget", [60, 1000])
def test_fifty_steps_equal_trls(tmp_path: Path, tokenizer: Any, budget: int) -> None:
    """In TRL a step is one micro-batch; here it is one or several."""
    theirs = run_trl(tmp_path / "trl", tokenizer)
    ours = run_packed(tmp_path / "ours", tokenizer, "all", budget)
    assert len(ours) == len(theirs) == STEPS
    for name in LOGGED:
        np.testing.assert_allclose(
            [row[name] for row in ours], [row[name] for row in theirs], rtol=1e-4, atol=1e-4, err_msg=name
        )


def plain_losses(nll_on: str, steps: int) -> list[float]:
    """Equations 5 to 7, a sequence at a time, with torch's own optimizer."""
    model = make_model("mistral").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=SETTINGS["learning_rate"], weight_decay=0)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        nll, penalties = [], []
        for pair in (PAIRS[row] for row in PLAN.step_rows(step)):
            prompt, odds = pair["prompt_ids"], []
            for side in ("chosen", "rejected"):
                ids = torch.tensor([prompt + pair[f"{side}_ids"]])
                each = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
                completion = each[len(prompt) - 1 :]
                probability = completion.mean().exp()
                odds.append(torch.log(probability / (1 - probability)))
                if side == "chosen":
                    nll.append(-(each if nll_on == "all" else completion))
            penalties.append(-logsigmoid(odds[0] - odds[1]))
        loss = torch.cat(nll).mean() + BETA * torch.stack(penalties).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("nll_on", ["all", "completion"])
def test_every_budget_trains_as_a_plain_loop_does(tmp_path: Path, tokenizer: Any, nll_on: str) -> None:
    expected = plain_losses(nll_on, 5)
    for budget in (60, 1000):
        ours = run_packed(tmp_path / str(budget), tokenizer, nll_on, budget, steps=5)
        assert [row["loss"] for row in ours] == pytest.approx(expected, abs=1e-4)


def test_prompts_are_scored_behind_the_completions() -> None:
    pairs = [
        {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [10]},
        {"prompt_ids": [11], "chosen_ids": [12], "rejected_ids": [13]},
    ]
    row = scoring_prompts(pack_pairs(pairs, multiple=16))
    assert row.targets.tolist() == [[8, 9, 10, 12, 13, 6, 7]]
    assert row.branch.tolist() == [0, 0, 1, 2, 3, -1, -1]
    assert row.tokens[0, row.predictors].tolist() == [7, 8, 7, 11, 11, 5, 6]
