"""What each process of `test_bf16.py` does: first steps of DPO as a recipe asks for them, on a share of the plan."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from transformers.trainer_utils import SaveStrategy

from tests.unit.training.packed_workers import forget_state
from tests.unit.training.small_models import VOCAB, make_model, make_pairs
from zephyr_ray.config import loader
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.embedded.model import Sizes, train_tokenizer
from zephyr_ray.errors import GuardError
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.training.arithmetic import scoring
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.deepspeed_config import deepspeed_config
from zephyr_ray.training.logps import scorer
from zephyr_ray.training.methods import method_of
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.training.trl_options import check_trl_options
from zephyr_ray.training.worker import _init_deepspeed_on_cpu, make_trainer

PAIRS = make_pairs(12, 1, longest=90)
AT_A_TIME = 5
"""Pairs whose reference log-probs are computed together: in other rows and batches than in training."""


class Way(NamedTuple):
    """How a run is made."""

    zero_stage: int
    engine: str = "packed"
    lora: bool = False
    dtype: str = "bfloat16"
    family: str = "mistral"
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "-".join(
            [f"zero{self.zero_stage}", "lora" if self.lora else "full", *self[1:2], *self[3:5], *self.options]
        )


def make_folder(folder: Path, family: str, **shape: int) -> str:
    """A model in bfloat16 and its tokenizer, as a stage leaves them."""
    path = folder / family
    make_model(family, **shape).to(torch.bfloat16).save_pretrained(path)
    train_tokenizer(Sizes(vocab_size=VOCAB), seed=0).save_pretrained(path)
    return str(path)


def recipe_of(way: Way, folder: str, device: str = "cpu") -> Recipe:
    """A recipe that the commands take."""
    lora = ["model.lora.r=4"] if way.lora else []
    gpus = [f"{section}.gpus_per_worker=1" for section in ("dpo.training", "reference_logps") if device == "cuda"]
    recipe = loader.load(
        [],
        [
            f"model.path={folder}",
            f"model.dtype={way.dtype}",
            *lora,
            *gpus,
            f"dpo.training.zero_stage={way.zero_stage}",
            f"dpo.training.engine={way.engine}",
            "dpo.training.tokens_per_micro_batch=400",
            "dpo.training.micro_batch=2",
            "dpo.training.logging_steps=1",
            "dpo.training.checkpoint_steps=100",
            "dpo.training.report_to=[]",
            f"dpo.global_batch={len(PAIRS)}",
            "dpo.max_steps=2",
            "dpo.learning_rate=1e-3",
            "dpo.warmup_ratio=0",
            *way.options,
        ],
    )
    check_trl_options(method_of("dpo"), recipe.dpo.training.trl)
    return recipe


def references(recipe: Recipe, source: ModelSource, device: str = "cpu") -> dict[str, np.ndarray]:
    """By the reference stage's own scorer."""
    score = scorer(scoring(recipe.model, recipe.dpo.training), recipe.chat, source, device)
    parts = [score(PAIRS[start : start + AT_A_TIME]) for start in range(0, len(PAIRS), AT_A_TIME)]
    names = ("ref_chosen_logps", "ref_rejected_logps")
    return {name: np.concatenate(sides) for name, sides in zip(names, zip(*parts, strict=True), strict=True)}


def trainer_of(
    way: Way,
    model: str,
    folder: str,
    rank: int = 0,
    world_size: int = 1,
    device: str = "cpu",
    reference: dict[str, np.ndarray] | None = None,
) -> Any:
    """The stage's own trainer, by default with the reference stage's own log-probs."""
    recipe, source = recipe_of(way, model, device), ModelSource(model)
    table = datasets.Dataset.from_list(PAIRS)
    rows = Rows(table, np.arange(len(PAIRS)), reference or references(recipe, source, device))
    settings = TrainingSettings("dpo", recipe.dpo, recipe.model, recipe.chat, recipe.run.seed)
    return make_trainer(settings, source, rows, folder, device, rank, world_size)


def train(way: Way, model: str, folder: str, rank: int = 0, world_size: int = 1, device: str = "cpu") -> dict[str, Any]:
    """What a run logs, and the dtypes of the weights it trains."""
    trainer = trainer_of(way, model, folder, rank, world_size, device)
    trainer.args.save_strategy = SaveStrategy.NO  # after the last step, too
    trainer.train()
    weights = {str(weight.dtype) for weight in trainer.model.parameters() if weight.requires_grad}
    return {"log": [row for row in trainer.state.log_history if "loss" in row], "weights": sorted(weights)}


def summed_gradient(zero_stage: int, micro_batches: int, share: float) -> float:
    """A weight's gradient, as DeepSpeed's optimizer gets it, after micro-batches whose own is `share` each."""
    import deepspeed

    config = deepspeed_config(zero_stage, "cpu")
    assert config is not None
    config |= {"bf16": {"enabled": True}, "train_micro_batch_size_per_gpu": 1, "gradient_clipping": 0.0}
    sizes = {name: 10_000 for name, value in config["zero_optimization"].items() if value == "auto"}
    config["zero_optimization"] |= sizes
    model = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    del config["train_batch_size"], config["gradient_accumulation_steps"]
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    for number in range(micro_batches):
        engine.set_gradient_accumulation_boundary(number == micro_batches - 1)
        engine.backward(engine(torch.full((1, 2), share, dtype=torch.bfloat16)).sum())
    return float(deepspeed.utils.safe_get_full_grad(engine.module.weight)[0, 0])


def train_all(
    rank: int, world_size: int, ways: tuple[Way, ...], models: dict[str, str], folder: str, device: str = "cpu"
) -> None:
    """The first process writes `<name of the way>.json`."""
    for way in ways:
        if way.zero_stage > 0 and device == "cpu":
            _init_deepspeed_on_cpu()
        result = train(way, models[way.family], os.path.join(folder, f"out-{rank}"), rank, world_size, device)
        if rank == 0:
            Path(folder, f"{way.name}.json").write_text(json.dumps(result), encoding="utf-8")
        forget_state()


def first_step_of(rank: int, world_size: int, way: Way, model: str, reference: str, folder: str, device: str) -> None:
    """Writes `guard.txt`: what the first step's guard says where the reference is a model of its own, or nothing."""
    logps = references(recipe_of(way, reference, device), ModelSource(reference), device)
    trainer = trainer_of(way, model, os.path.join(folder, "out"), rank, world_size, device, logps)
    trainer.args.save_strategy = SaveStrategy.NO
    said = ""
    try:
        trainer.train()
    except GuardError as error:
        said = str(error)
    Path(folder, "guard.txt").write_text(said, encoding="utf-8")


def worker(rank: int, world_size: int, ways: tuple[Way, ...], models: dict[str, str], folder: str) -> None:
    """`train_all`, and the gradients' sums of each process."""
    train_all(rank, world_size, ways, models, folder)
    sums = {stage: summed_gradient(stage, micro_batches=300, share=1 / 128) for stage in (1, 2, 3)}
    Path(folder, f"sums-{rank}.json").write_text(json.dumps(sums), encoding="utf-8")
