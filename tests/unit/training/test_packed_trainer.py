"""The packed trainer against unmodified TRL on the same pairs in the same order, in float32."""

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tests.oracles.dpo import sequence_logp
from tests.unit.training.small_models import make_model, make_pairs
from tests.unit.training.trl_options import OPTIONS
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.sampler import Plan, Slot
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trainers.dpo import PackedDPOTrainer
from zephyr_ray.training.trainers.pairs import collate_packed

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH = 6
STEPS = 50
PAIRS = make_pairs(20, 1)  # an epoch of four steps, the last one of two pairs
PLAN = Plan(len(PAIRS), BATCH, epochs=1, seed=0, max_steps=STEPS)


@pytest.fixture(scope="module")
def references() -> dict[str, np.ndarray]:
    model = make_model("mistral")
    return {
        f"ref_{side}_logps": np.array([sequence_logp(model, pair["prompt_ids"], pair[f"{side}_ids"]) for pair in PAIRS])
        for side in ("chosen", "rejected")
    }


def arguments(folder: Path, **options: Any) -> DPOConfig:
    settings: dict[str, Any] = {
        **OPTIONS,
        "beta": 0.3,
        "max_length": None,
        "precompute_ref_log_probs": True,
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
    }
    return DPOConfig(output_dir=str(folder), **{**settings, **options})


class PlainTRL(DPOTrainer):
    """TRL's own trainer and loss. Only its data are ours: it gets a step's pairs as one padded batch."""

    pairs: list[dict[str, Any]]

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def _precompute_ref_logps(self, dataset, *args, **kwargs):
        return dataset

    def get_train_dataloader(self):
        steps = [[self.pairs[row] for row in PLAN.step_rows(step)] for step in range(STEPS)]
        return torch.utils.data.DataLoader(
            [row for step in steps for row in step],
            batch_sampler=np.split(np.arange(sum(map(len, steps))), np.cumsum([len(step) for step in steps])[:-1]),
            collate_fn=DataCollatorForPreference(pad_token_id=0),
        )


def lora() -> LoraConfig:
    """Matrices that are not 0 at the start, so that both have a gradient."""
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)


def run_trl(folder: Path, tokenizer, references, peft: LoraConfig | None = None, **options) -> list[dict[str, float]]:
    table = datasets.Dataset.from_list(PAIRS)
    torch.manual_seed(7)
    trainer = PlainTRL(
        model=make_model("mistral"),
        args=arguments(folder, **options),
        train_dataset=table,
        processing_class=tokenizer,
        peft_config=peft,
    )
    trainer.pairs = [
        {**pair, **{name: float(values[row]) for name, values in references.items()}} for row, pair in enumerate(PAIRS)
    ]
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


def packed_trainer(folder: Path, tokenizer, references, budget: int, peft: LoraConfig | None = None, **options):
    table = datasets.Dataset.from_list(PAIRS)
    torch.manual_seed(7)
    trainer = PackedDPOTrainer(
        model=make_model("mistral"),
        args=arguments(folder, **options),
        train_dataset=table,
        processing_class=tokenizer,
        peft_config=peft,
    )
    rows = Rows(table, np.arange(len(PAIRS)), references)
    trainer.follow(rows, PackedRankPlan(PLAN, 0, 1, rows.packed_lengths(), budget))
    return trainer


def run_packed(folder: Path, tokenizer, references, budget: int, **options) -> list[dict[str, float]]:
    trainer = packed_trainer(folder, tokenizer, references, budget, **options)
    trainer.train()
    assert trainer.seen.tolist() == PLAN.times_seen().tolist()
    return [row for row in trainer.state.log_history if "loss" in row]


def assert_same_curve(ours: list[dict], theirs: list[dict], names: list[str]) -> None:
    assert len(ours) == len(theirs) == STEPS
    for name in names:
        np.testing.assert_allclose(
            [r[name] for r in ours], [r[name] for r in theirs], atol=1e-4, rtol=1e-4, err_msg=name
        )


@pytest.mark.parametrize("ld_alpha", [None, 0.5])
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "hinge", "sigmoid_norm"])
def test_fifty_steps_equal_trls(tmp_path: Path, tokenizer, references, loss_type: str, ld_alpha: float | None) -> None:
    options = {"loss_type": [loss_type], "ld_alpha": ld_alpha}
    theirs = run_trl(tmp_path, tokenizer, references, **options)
    ours = run_packed(tmp_path, tokenizer, references, budget=120, **options)
    assert_same_curve(ours, theirs, ["loss"])
    assert abs(theirs[0]["loss"] - theirs[-1]["loss"]) > 1e-2  # something was learnt


def test_every_metric_of_trl_is_the_same(tmp_path: Path, tokenizer, references) -> None:
    """For any budget: a pair at a time, several micro-batches a step, one."""
    away = {name: values + np.sin(np.arange(len(values))) for name, values in references.items()}  # no margin is 0
    theirs = run_trl(tmp_path, tokenizer, away)
    for budget in (1, 90, 10_000):
        ours = run_packed(tmp_path, tokenizer, away, budget)
        assert set(ours[0]) == set(theirs[0])
        assert_same_curve(ours, theirs, sorted(set(theirs[0]) - {"epoch"}))


def test_the_first_loss_is_ln_2(tmp_path: Path, tokenizer, references) -> None:
    trainer = packed_trainer(tmp_path, tokenizer, references, 100, max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


def first_steps(folder: Path, tokenizer, references, **options) -> list[dict[str, float]]:
    trainer = packed_trainer(folder, tokenizer, references, 100, max_steps=6, **options)
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


def test_bfloat16_and_checkpointing(tmp_path: Path, tokenizer, references) -> None:
    """Recomputing activations changes nothing; autocast over float32 weights starts near ln 2."""
    plain = first_steps(tmp_path, tokenizer, references)
    recomputed = first_steps(tmp_path, tokenizer, references, gradient_checkpointing=True)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose([r[name] for r in recomputed], [r[name] for r in plain], atol=1e-5, rtol=1e-5)
    narrow = first_steps(tmp_path, tokenizer, references, bf16=True)
    assert narrow[0]["loss"] == pytest.approx(math.log(2), abs=0.05)
    assert narrow[0]["loss"] != pytest.approx(math.log(2), abs=1e-6)  # it did run in bfloat16


def test_an_adapter_trains_as_with_trl(tmp_path: Path, tokenizer, references) -> None:
    """LoRA's wrapper passes packed rows through, and its gradients are TRL's."""
    options = {"learning_rate": 1e-2}
    theirs = run_trl(tmp_path, tokenizer, references, peft=lora(), **options)
    ours = run_packed(tmp_path, tokenizer, references, 120, peft=lora(), **options)
    assert_same_curve(ours, theirs, ["loss", "grad_norm"])
    assert abs(theirs[0]["loss"] - theirs[-1]["loss"]) > 1e-2


def test_a_pair_costs_its_tokens_and_hardly_more(tokenizer) -> None:
    """Tokens computed over useful ones (each prompt once) with lengths like UltraFeedback's: no padding anywhere."""
    rng = np.random.default_rng(0)
    pairs = [
        {
            "prompt_ids": [3] * int(np.clip(rng.lognormal(4.8, 0.9), 8, 512)),
            **{f"{side}_ids": [4] * int(np.clip(rng.lognormal(5.5, 0.7), 8, 512)) for side in ("chosen", "rejected")},
        }
        for _ in range(128)
    ]
    useful = np.array([sum(map(len, pair.values())) for pair in pairs])
    for multiple, most in ((1, 1.0), (128, 1.03)):
        computed = 0
        for rank in range(2):
            for slots in PackedRankPlan(Plan(128, 64, 1, 0), rank, 2, useful, 4096):
                packed = [collate_packed([with_plan(pairs[s.row], s) for s in part], multiple) for part in slots]
                computed += sum(batch["packed_row"].tokens.numel() for batch in packed)
        assert 1.0 <= computed / useful.sum() <= most


def with_plan(pair: dict[str, Any], slot: Slot) -> dict[str, Any]:
    return {**pair, "ref_chosen_logps": 0.0, "ref_rejected_logps": 0.0, "row": slot.row, "loss_scale": slot.loss_scale}
