"""What each process of `test_packed_workers.py` does: packed training on its share of the plan, in several ways."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from typing import Any, Literal

import datasets
import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from transformers.integrations import unset_hf_deepspeed_config
from trl import DPOConfig, KTOConfig, RewardConfig, SFTConfig
from trl.trainer.utils import _find_free_port

from tests.unit.training.small_models import (
    VOCAB,
    make_classifier,
    make_dialogues,
    make_groups,
    make_model,
    make_pairs,
    make_unpaired,
)
from zephyr_ray.chat_template import load_tokenizer
from zephyr_ray.config.model import Chat
from zephyr_ray.config.training import DPO
from zephyr_ray.embedded.model import Sizes, train_tokenizer
from zephyr_ray.training.dataset import GroupRows, Rows, UnpairedRows
from zephyr_ray.training.deepspeed_config import deepspeed_config
from zephyr_ray.training.held_out_evaluation import EvaluateHeldOut
from zephyr_ray.training.methods.kto import KTO, options
from zephyr_ray.training.methods.orpo import ORPO
from zephyr_ray.training.sampler import Plan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trainers.dpo import PackedDPOTrainer
from zephyr_ray.training.trainers.groups import GroupedDPOTrainer
from zephyr_ray.training.trainers.kto import PackedKTOTrainer
from zephyr_ray.training.trainers.orpo import PackedORPOTrainer
from zephyr_ray.training.trainers.reward_model import PackedRewardTrainer
from zephyr_ray.training.trainers.sft import PackedSFTTrainer
from zephyr_ray.training.worker import _init_deepspeed_on_cpu

PAIRS, GROUPS, DIALOGUES = make_pairs(17, 4), make_groups(17, 5), make_dialogues(17)
UNPAIRED = make_unpaired(17, 6)
HELD_OUT = make_dialogues(28)[17:]
PLAN = Plan(len(PAIRS), global_batch=8, epochs=2, seed=0)  # steps of 8, 8 and 1 rows: the last one has fillers
BUDGET = 200
"""Tokens that all workers together take at a time: the more there are, the smaller their micro-batches."""
Way = tuple[Literal["dpo", "groups", "kto", "orpo", "reward_model", "sft"], int]
"""What is trained, and under which ZeRO stage."""
CLIP = 0.1


def train(rank: int, world_size: int, way: Way, folder: str) -> dict[str, Any]:
    """A run's logged losses and gradient norms, and which rows this rank trained on in each step."""
    kind, zero_stage = way
    with tempfile.TemporaryDirectory() as tokens:
        train_tokenizer(Sizes(vocab_size=VOCAB), seed=0).save_pretrained(tokens)
        tokenizer = load_tokenizer(tokens, Chat())
    table = datasets.Dataset.from_list({"sft": DIALOGUES, "groups": GROUPS, "kto": UNPAIRED}.get(kind, PAIRS))
    made = make_classifier if kind == "reward_model" else make_model
    model = made("mistral")  # before the arguments: after them, ZeRO-3 would draw its weights in shards
    shared: dict[str, Any] = {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "max_length": None,
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
        "learning_rate": 3e-3,
        "max_grad_norm": CLIP,  # smaller than every norm here: clipping has to see the whole step's gradient
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "max_steps": PLAN.steps,
        "ddp_find_unused_parameters": False,
        "deepspeed": deepspeed_config(zero_stage, "cpu"),
    }
    trainer: Any
    if kind == "dpo":
        args: Any = DPOConfig(precompute_ref_log_probs=True, **shared)
        trainer = PackedDPOTrainer(model=model, args=args, train_dataset=table, processing_class=tokenizer)
        references = {f"ref_{side}_logps": -50 + np.sin(np.arange(len(PAIRS))) for side in ("chosen", "rejected")}
        rows = Rows(table, np.arange(len(table)), references)
    elif kind == "groups":
        args = DPOConfig(precompute_ref_log_probs=True, **shared)
        trainer = GroupedDPOTrainer(model=model, args=args, train_dataset=table, processing_class=tokenizer)
        trainer.section = DPO(best_nll=0.1)
        completions = sum(len(group["completions"]) for group in GROUPS)
        rows = GroupRows(table, np.arange(len(table)), -50 + np.sin(np.arange(completions), dtype=np.float32))
    elif kind == "kto":
        section = KTO(global_batch=8, desirable_weight=4, undesirable_weight=6)
        args = KTOConfig(**shared | options(section))
        trainer = PackedKTOTrainer(model=model, args=args, train_dataset=table, processing_class=tokenizer)
        trainer.section = section
        wave = -80 + 10 * np.sin(np.arange(2 * len(table), dtype=np.float32))
        rows = UnpairedRows(table, np.arange(len(table)), wave[: len(table)], wave.reshape(2, -1) - 10)
    elif kind == "orpo":
        args = DPOConfig(precompute_ref_log_probs=True, **shared)
        trainer = PackedORPOTrainer(model=model, args=args, train_dataset=table, processing_class=tokenizer)
        trainer.section = ORPO()
        rows = Rows(table, np.arange(len(table)))
    elif kind == "reward_model":
        args = RewardConfig(center_rewards_coefficient=0.05, **shared)
        trainer = PackedRewardTrainer(model=model, args=args, train_dataset=table, processing_class=tokenizer)
        rows = Rows(table, np.arange(len(table)), {"margin": 0.1 * np.arange(len(table))})
    else:
        args = SFTConfig(packing=False, dataset_kwargs={"skip_prepare_dataset": True}, **shared)
        trainer = PackedSFTTrainer(model=model, args=args, train_dataset=table, processing_class=tokenizer)
        rows = Rows(table, np.arange(len(table)), loss_on="assistant")
    plan = PackedRankPlan(PLAN, rank, world_size, rows.packed_lengths(), BUDGET // world_size, rows.loss_weights())
    trainer.follow(rows, plan)
    if kind == "sft":
        trainer.held_out = evaluation(trainer, rank, world_size)
        trainer.add_callback(trainer.held_out)
    trainer.train()
    return {
        "log": [row for row in trainer.state.log_history if "loss" in row],
        "held_out": trainer.held_out and trainer.held_out.summary(),
        "seen": trainer.seen.tolist(),
        "micro_batches": [len(step) for step in plan],
    }


def evaluation(trainer: Any, rank: int, world_size: int) -> EvaluateHeldOut:
    """The loss on other dialogues: in its last batch there are fewer rows than workers."""
    rows = Rows(datasets.Dataset.from_list(HELD_OUT), np.arange(len(HELD_OUT)), loss_on="assistant")
    once = Plan(len(HELD_OUT), global_batch=5, epochs=1, seed=0)
    return EvaluateHeldOut(
        trainer, rows, PackedRankPlan(once, rank, world_size, rows.packed_lengths(), BUDGET // world_size), every=2
    )


def start(work: Callable[..., None], workers: int, *arguments: Any, group: str = "gloo") -> None:
    """Runs `work(rank, workers, *arguments)` in so many processes of a group of torch's.

    They are forked from a process that has loaded the libraries, once for all tests of a lane.
    """
    multiprocessing.set_forkserver_preload(["tests.unit.training.bf16_workers"])
    each = (work, workers, group, _find_free_port(), *arguments)
    torch.multiprocessing.start_processes(_process, each, nprocs=workers, start_method="forkserver")


def _process(rank: int, work: Callable[..., None], world_size: int, group: str, port: int, *arguments: Any) -> None:
    gc.freeze()  # each trainer collects garbage, and would look through all libraries for it
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(world_size)}
    torch.distributed.init_process_group(group, rank=rank, world_size=world_size)
    work(rank, world_size, *arguments)
    torch.distributed.destroy_process_group()
    gc.unfreeze()


def worker(rank: int, world_size: int, ways: tuple[Way, ...], folder: str) -> None:
    """Writes `<kind>-<stage>-<rank>.json`."""
    for kind, stage in ways:
        if stage > 0:
            _init_deepspeed_on_cpu()
        result = train(rank, world_size, (kind, stage), os.path.join(folder, f"out-{kind}-{stage}"))
        with open(os.path.join(folder, f"{kind}-{stage}-{rank}.json"), "w", encoding="utf-8") as stream:
            json.dump(result, stream)
        forget_state()


def forget_state() -> None:
    """Accelerate and transformers keep the last run's settings for the process."""
    unset_hf_deepspeed_config()
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    for state in (AcceleratorState, GradientState, PartialState):
        state._shared_state.clear()
