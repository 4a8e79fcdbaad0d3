"""TRL's configuration of a training: our fields under TRL's names, then the pass-through options.

`trl_options` says which options are passed through.
"""

from __future__ import annotations

from typing import Any

import torch

from zephyr_ray.config.training import Optimisation
from zephyr_ray.errors import UserError
from zephyr_ray.training.deepspeed_config import deepspeed_config
from zephyr_ray.training.methods import Method
from zephyr_ray.training.sampler import RankPlan
from zephyr_ray.training.token_batching import PackedRankPlan


def training_arguments(
    method: Method,
    config: Any,
    section: Optimisation,
    rank_plan: RankPlan | PackedRankPlan,
    seed: int,
    folder: str,
    device: str,
    dtype: torch.dtype,
) -> Any:
    """TRL's configuration, of the class `config`, for one rank.

    Raises:
        UserError: A field or a pass-through option has a value that TRL refuses.
    """
    training = section.training
    options: dict[str, Any] = {
        "output_dir": folder,
        "seed": seed,
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": section.lr_scheduler,
        "warmup_steps": round(section.warmup_ratio * rank_plan.plan.steps),
        "num_train_epochs": 1,
        "max_steps": rank_plan.plan.steps,
        "per_device_train_batch_size": rank_plan.micro_batch
        if isinstance(rank_plan, RankPlan)
        else training.micro_batch,
        "gradient_accumulation_steps": rank_plan.micro_batches_per_step,
        "gradient_checkpointing": bool(training.gradient_checkpointing),
        "bf16": dtype == torch.bfloat16,
        "use_cpu": device == "cpu",
        "deepspeed": deepspeed_config(training.zero_stage, device),
        "ddp_find_unused_parameters": False,
        "save_strategy": "steps",
        "save_steps": training.checkpoint_steps or rank_plan.plan.steps,  # the last step is always saved
        "logging_steps": training.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "report_to": list(training.report_to),
        "disable_tqdm": True,
        "push_to_hub": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": device == "cuda",
    }
    options |= method.options(section)
    try:
        return config(**{**options, **training.trl})
    except (TypeError, ValueError) as error:
        raise UserError(f"{method.name}.training.trl: {' '.join(str(error).split())[:300]}") from None
