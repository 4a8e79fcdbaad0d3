"""Part 8: what the check of DPO's first step says of right runs under several packings, and of wrong references."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from gpu_parts.bench import Bench, Record, release, round_all
from gpu_parts.models import make_model
from gpu_parts.training import tokenizer
from transformers import PrinterCallback
from trl import DPOConfig
from trl.trainer.utils import add_fused_lm_head

from zephyr_ray.errors import GuardError
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.logps import PackedScorer
from zephyr_ray.training.packed.attention import segment_multiple
from zephyr_ray.training.reference_guard import TOLERANCE, FirstStepGuard
from zephyr_ray.training.sampler import Plan
from zephyr_ray.training.token_batching import PackedRankPlan, rounded_up
from zephyr_ray.training.trainers.dpo import PackedDPOTrainer

PAIRS = 32


@dataclass(frozen=True)
class Computing:
    """A way to compute, as `zephyr_ray.training.arithmetic` has them."""

    name: str
    weights: torch.dtype
    autocast: bool
    lora: bool = False


WAYS = (
    Computing("bfloat16 weights", torch.bfloat16, False),
    Computing("float32 weights in autocast", torch.float32, True),
    Computing("an adapter on bfloat16 weights in autocast", torch.bfloat16, True, lora=True),
    Computing("float32", torch.float32, False),
)
# The reference's budget by the bench's, pairs it takes at a time, the policy's budget, what the reference is.
RUNS = (
    (1, 16, 1, "the policy"),
    (1, 16, 0.5, "the policy"),
    (0.5, 7, 2, "the policy"),
    (1, 16, 1, "another seed"),
    (1, 16, 1, "3 % off"),
)


def first_step(bench: Bench) -> Iterator[Record]:
    """A record for each way to compute and each run: spread and drift, the loss less ln 2, and what is said."""
    for way in WAYS:
        for scored, at_once, trained, reference in RUNS:
            if bench.left() < 10:
                return
            model = make_model(bench, bench.sizes.noise_layers, way.weights, seed=int(reference == "another seed"))
            if reference == "3 % off":
                nudge(model, 0.03)
            logps = score(bench, way, model, int(scored * bench.sizes.budget), at_once)
            del model
            release()
            found = train_once(bench, way, logps, int(trained * bench.sizes.budget))
            yield {"arithmetic": way.name, "reference": reference, "budgets": [scored, trained]} | round_all(found)


@torch.no_grad()
def nudge(model: Any, share: float) -> None:
    """Moves every weight by a share of its tensor's standard deviation."""
    torch.manual_seed(7)
    for weight in model.parameters():
        weight += torch.randn_like(weight) * (share * weight.float().std()).to(weight.dtype)


def score(bench: Bench, way: Computing, model: Any, budget: int, at_once: int) -> dict[str, np.ndarray]:
    """The reference's log-probs, as its stage computes them."""
    add_fused_lm_head(model)
    scorer = PackedScorer(model, None, budget, bench.backend, way.autocast)
    pairs = bench.pairs[:PAIRS]
    parts = [scorer(pairs[start : start + at_once]) for start in range(0, len(pairs), at_once)]
    names = ("ref_chosen_logps", "ref_rejected_logps")
    return {name: np.concatenate([part[side] for part in parts]) for side, name in enumerate(names)}


def train_once(bench: Bench, way: Computing, logps: dict[str, np.ndarray], budget: int) -> Record:
    """One step over all pairs, under the check."""
    from peft import LoraConfig

    table = datasets.Dataset.from_list(bench.pairs[:PAIRS])
    narrow = way.autocast or way.weights == torch.bfloat16
    align = segment_multiple(bench.backend, torch.bfloat16 if narrow else torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PackedDPOTrainer(
            model=make_model(bench, bench.sizes.noise_layers, way.weights),
            args=DPOConfig(
                output_dir=folder,
                use_cpu=not bench.on_gpu,
                bf16=way.autocast,
                optim="sgd",
                max_steps=1,
                logging_steps=1,
                per_device_train_batch_size=1,
                precompute_ref_log_probs=True,
                max_length=None,
                remove_unused_columns=False,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=table,
            processing_class=tokenizer(),
            peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM") if way.lora else None,
        )
        trainer.remove_callback(PrinterCallback)
        rows = Rows(table, np.arange(len(table)), logps)
        plan = Plan(len(table), len(table), 1, seed=3)
        lengths = rounded_up(rows.packed_lengths(), align)
        trainer.follow(rows, PackedRankPlan(plan, 0, 1, lengths, budget), bench.backend, align)
        trainer.add_callback(FirstStepGuard(trainer, TOLERANCE["bfloat16" if narrow else "float32"]))
        said = "passes"
        try:
            trainer.train()
        except GuardError as error:
            said = str(error)
    count, tokens, apart, squares = trainer.first_step.sums.sum(dim=0).tolist()
    losses = [row["loss"] - math.log(2) for row in trainer.state.log_history if "loss" in row]
    trained = {"first_loss_less_ln2": losses[0]} if losses else {}
    return {"spread": math.sqrt(squares / count), "drift": abs(apart) / math.sqrt(tokens), "said": said} | trained
