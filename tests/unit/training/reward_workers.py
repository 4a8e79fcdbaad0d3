"""What each process of `test_reward_head.py` does: a reward model's first steps, from a language model's folder."""

from __future__ import annotations

import json
import os
from typing import Any

import datasets
import numpy as np

from tests.unit.training.packed_workers import forget_state
from tests.unit.training.small_models import make_pairs
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.methods import load_recipe
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.training.worker import _init_deepspeed_on_cpu, make_trainer

PAIRS = make_pairs(12, 1, longest=60)


def train(model: str, folder: str, zero_stage: int, dtype: str, rank: int = 0, world_size: int = 1) -> dict[str, Any]:
    """What two steps log, and the padding token that the checkpoint will have."""
    recipe: Any = load_recipe(
        [],
        [
            f"model.path={model}",
            f"model.dtype={dtype}",
            f"reward_model.training.zero_stage={zero_stage}",
            "reward_model.training.tokens_per_micro_batch=300",
            "reward_model.training.logging_steps=1",
            "reward_model.training.report_to=[]",
            f"reward_model.global_batch={len(PAIRS)}",
            "reward_model.max_steps=2",
            "reward_model.learning_rate=1e-2",
            "reward_model.warmup_ratio=0",
        ],
    )
    table = datasets.Dataset.from_list(PAIRS)
    settings = TrainingSettings("reward_model", recipe.reward_model, recipe.model, recipe.chat, recipe.run.seed)
    rows = Rows(table, np.arange(len(PAIRS)))
    trainer = make_trainer(settings, ModelSource(model), rows, folder, "cpu", rank, world_size)
    trainer.args.save_strategy = "no"
    trainer.train()
    trainer.save_model(os.path.join(folder, "export"))
    return {
        "log": [row for row in trainer.state.log_history if "loss" in row],
        "padding": trainer.model.config.pad_token_id,
    }


def worker(rank: int, world_size: int, model: str, dtype: str, folder: str) -> None:
    """Under ZeRO-3; writes `<dtype>-<rank>.json`."""
    _init_deepspeed_on_cpu()
    found = train(model, os.path.join(folder, dtype), 3, dtype, rank, world_size)
    with open(os.path.join(folder, f"{dtype}-{rank}.json"), "w", encoding="utf-8") as stream:
        json.dump(found, stream)
    forget_state()
