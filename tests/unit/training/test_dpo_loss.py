"""TRL's loss and our reference log-probs against the paper's equation, in float32 on a small model."""

import hashlib
import inspect
import math
import re
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM
from trl import DPOConfig, DPOTrainer
from trl.trainer import dpo_trainer
from trl.trainer.utils import add_fused_lm_head

from tests.oracles.dpo import dpo_loss, sequence_logp
from zephyr_ray.config.training import SMOOTHED
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.logps import PackedScorer, PaddedScorer
from zephyr_ray.training.sampler import Plan, RankPlan
from zephyr_ray.training.trainers.dpo import PlannedDPOTrainer

VOCAB = 320
BETA = 0.3


def make_model(seed: int) -> MistralForCausalLM:
    torch.manual_seed(seed)
    config = MistralConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        sliding_window=None,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return MistralForCausalLM(config).eval()


def make_pairs(count: int, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {
            name: rng.integers(3, VOCAB, size=rng.integers(1, 12)).tolist()
            for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        }
        for _ in range(count)
    ]


def make_trainer(folder: Path, model, tokenizer, pairs: list[dict], references: dict, **options) -> PlannedDPOTrainer:
    table = datasets.Dataset.from_list(pairs)
    global_batch = options.pop("global_batch", len(pairs))
    args = DPOConfig(
        output_dir=str(folder),
        beta=BETA,
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_length=None,
        precompute_ref_log_probs=True,
        remove_unused_columns=False,
        gradient_checkpointing=False,
        learning_rate=1e-3,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        **options,
    )
    trainer = PlannedDPOTrainer(model=model, args=args, train_dataset=table, processing_class=tokenizer)
    rows = Rows(table, np.arange(len(pairs)), references)
    trainer.follow(rows, RankPlan(Plan(len(pairs), global_batch, 1, 0), 0, 1, options["per_device_train_batch_size"]))
    return trainer


def references_of(model, pairs: list[dict]) -> dict[str, np.ndarray]:
    return {
        f"ref_{side}_logps": np.array([sequence_logp(model, pair["prompt_ids"], pair[f"{side}_ids"]) for pair in pairs])
        for side in ("chosen", "rejected")
    }


@pytest.mark.parametrize("budget", [None, 1, 40, 1000])
def test_reference_logps_are_sums_over_the_completion(budget: int | None) -> None:
    """Padded (None), and packed by any budget."""
    model, pairs = make_model(0), make_pairs(6, 0)
    plain = references_of(model, pairs)
    add_fused_lm_head(model)
    scorer = PaddedScorer(model, None, 0) if budget is None else PackedScorer(model, None, budget, "sdpa")
    chosen, rejected = scorer(pairs)
    np.testing.assert_allclose(chosen, plain["ref_chosen_logps"], atol=1e-4)
    np.testing.assert_allclose(rejected, plain["ref_rejected_logps"], atol=1e-4)


def test_packed_and_padded_agree_on_length_desensitized_sums() -> None:
    padded, packed = make_model(0), make_model(0)
    for model in (padded, packed):
        add_fused_lm_head(model)
    pairs = make_pairs(6, 0)
    sides = PaddedScorer(padded, 0.5, 0)(pairs), PackedScorer(packed, 0.5, 50, "sdpa")(pairs)
    np.testing.assert_allclose(*sides, atol=1e-4)
    assert not np.allclose(sides[0], PaddedScorer(padded, None, 0)(pairs), atol=1e-2)


def test_trl_computes_the_papers_loss(tmp_path: Path, tokenizer) -> None:
    policy, reference, pairs = make_model(0), make_model(1), make_pairs(5, 1)
    ours, theirs = references_of(policy, pairs), references_of(reference, pairs)
    expected = dpo_loss(
        BETA, *(list(side[name]) for side in (ours, theirs) for name in ("ref_chosen_logps", "ref_rejected_logps"))
    )
    trainer = make_trainer(tmp_path, policy, tokenizer, pairs, theirs, per_device_train_batch_size=5)
    (batch,) = list(trainer.get_train_dataloader())
    assert float(trainer.compute_loss(trainer.model, batch)) == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(math.log(2), abs=1e-2)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 6])
def test_accumulated_loss_is_the_mean_over_the_step(tmp_path: Path, tokenizer, micro_batch: int) -> None:
    """Seven pairs in steps of six: the losses are means over six pairs and over one, for any micro-batch."""
    pairs = make_pairs(7, 2)
    references = references_of(make_model(1), pairs)
    trainer = make_trainer(
        tmp_path,
        make_model(0),
        tokenizer,
        pairs,
        references,
        global_batch=6,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=-(-6 // micro_batch),
        max_steps=2,
        lr_scheduler_type="constant",
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    policy = references_of(make_model(0), pairs)
    first = trainer.rank_plan.plan.step_rows(0)
    sides = [
        list(side[name][first]) for side in (policy, references) for name in ("ref_chosen_logps", "ref_rejected_logps")
    ]
    assert losses[0] == pytest.approx(dpo_loss(BETA, *sides), abs=1e-5)
    assert len(losses) == 2
    assert trainer.seen.tolist() == [1] * 7


def test_a_start_hashes_no_weight(tmp_path: Path, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []

    class Counting:
        def update(self, data: bytes) -> None:
            hashed.append(len(data))

        def hexdigest(self) -> str:
            return "0"

    monkeypatch.setattr(hashlib, "sha256", Counting)
    pairs = make_pairs(2, 3)
    dpo_trainer.hash_module(torch.nn.Linear(2, 3))
    assert hashed == [len("torch.float32"), 3 * 4, len("torch.float32"), 6 * 4]  # what TRL does is seen
    hashed.clear()
    trainer = make_trainer(
        tmp_path, make_model(0), tokenizer, pairs, references_of(make_model(0), pairs), per_device_train_batch_size=2
    )
    assert trainer.precompute_ref_logps
    assert not hashed


@pytest.mark.parametrize("deepspeed", [False, True])
def test_whole_weights_are_in_a_checkpoint_only_where_it_is_resumed_from_them(
    tmp_path: Path, tokenizer, deepspeed: bool
) -> None:
    """Under DeepSpeed they would be gathered from all ranks, for nothing: it resumes from its shards."""
    pairs = make_pairs(2, 3)
    references = references_of(make_model(0), pairs)
    trainer = make_trainer(tmp_path, make_model(0), tokenizer, pairs, references, per_device_train_batch_size=2)
    trainer.is_deepspeed_enabled = deepspeed
    trainer.save_model(str(tmp_path / "checkpoint"), _internal_call=True)
    assert (tmp_path / "checkpoint" / "model.safetensors").exists() != deepspeed


def test_label_smoothing_is_read_by_the_losses_that_the_recipe_allows_it_for(tmp_path: Path, tokenizer) -> None:
    """All losses of the installed TRL, with two smoothings: the loss changes, or it does not."""
    losses = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer)))
    assert losses > {"sigmoid", "ipo", "robust"}
    pairs = make_pairs(4, 3)
    references = references_of(make_model(1), pairs)
    trainer = make_trainer(tmp_path, make_model(0), tokenizer, pairs, references, per_device_train_batch_size=4)
    (batch,) = list(trainer.get_train_dataloader())

    def loss(loss_type: str, smoothing: float) -> float:
        trainer.loss_types, trainer.label_smoothing = [loss_type], smoothing
        return float(trainer.compute_loss(trainer.model, dict(batch)))

    assert {name for name in losses if loss(name, 0.1) != loss(name, 0.3)} == SMOOTHED
