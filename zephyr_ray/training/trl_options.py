"""Which options a recipe may pass through to TRL (`training.trl`), and what to set instead of the others.

An option is passed through only where it has an effect here. All others are refused: a recipe field is the place for
it, the platform decides it, or nothing reads it. Imports nothing heavy, so that every command checks, dry runs too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from zephyr_ray.training.methods import Method

PASSED = frozenset(
    {
        # the optimizer
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "lr_scheduler_kwargs",
        "max_grad_norm",
        "optim",
        "optim_args",
        "optim_target_modules",
        "weight_decay",
        # how the model is run
        "activation_offloading",
        "full_determinism",
        "gradient_checkpointing_kwargs",
        "liger_kernel_config",
        "neftune_noise_alpha",
        "router_aux_loss_coef",
        "tf32",
        "torch_compile",
        "torch_compile_backend",
        "torch_compile_mode",
        "torch_empty_cache_steps",
        "use_liger_kernel",
        # plain data parallelism
        "ddp_broadcast_buffers",
        "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters",
        "ddp_static_graph",
        # logs and trackers
        "debug",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "project",
        "run_name",
        "skip_memory_metrics",
        "trackio_bucket_id",
        "trackio_space_id",
        "trackio_static_space_id",
    }
)
"""Options of TRL 1.16's configurations that reach the trainer of every method and do something there."""

NO_EVALUATION = "training evaluates nothing; the model that DPO makes is checked on preferences.held_out"
_OWN_LOADER = "rows come from the plan's own loader, which does not read it"
NO_DATASET = "the rows are tokenized by a stage of their own"
_CHECKPOINTS = "set {stage}.training.checkpoint_steps, or {stage}.training.checkpoint_minutes"
_NO_HUB = "nothing is pushed from training; the finished model lies in {stage}/checkpoint"
_PROCESS_GROUP = "Ray Train makes the process group"
_SHARDING = "set {stage}.training.zero_stage"

EVALUATION = (
    "batch_eval_metrics",
    "bf16_full_eval",
    "do_eval",
    "do_predict",
    "eval_accumulation_steps",
    "eval_delay",
    "eval_do_concat_batches",
    "eval_on_start",
    "eval_steps",
    "eval_strategy",
    "eval_use_gather_object",
    "fp16_full_eval",
    "greater_is_better",
    "include_for_metrics",
    "label_names",
    "load_best_model_at_end",
    "metric_for_best_model",
    "per_device_eval_batch_size",
    "prediction_loss_only",
)
"""Options of evaluations in training."""

_FIELDS = {
    "bf16": "set model.dtype",
    "fp16": "set model.dtype (bfloat16 or float32)",
    "trust_remote_code": "models run by transformers' own code only",
    "model_init_kwargs": "set the fields of model",
    "learning_rate": "set {stage}.learning_rate",
    "lr_scheduler_type": "set {stage}.lr_scheduler",
    "warmup_steps": "set {stage}.warmup_ratio",
    "num_train_epochs": "set {stage}.epochs",
    "max_steps": "set {stage}.max_steps",
    "per_device_train_batch_size": "set {stage}.global_batch, and {stage}.training.micro_batch where rows are padded",
    "gradient_accumulation_steps": "set {stage}.global_batch",
    "auto_find_batch_size": "set {stage}.training.tokens_per_micro_batch",
    "gradient_checkpointing": "set {stage}.training.gradient_checkpointing",
    "logging_steps": "set {stage}.training.logging_steps",
    "logging_strategy": "set {stage}.training.logging_steps",
    "report_to": "set {stage}.training.report_to",
    "seed": "set run.seed",
    "data_seed": "set run.seed",
    "use_cpu": "set {stage}.training.gpus_per_worker",
    "pad_token": "it is the tokenizer's own",
}
_PLATFORM = {
    "output_dir": "set run.root",
    "logging_first_step": "the first step is always logged",
    "logging_nan_inf_filter": "a loss that is not finite stops the training",
    "average_tokens_across_devices": "the loss is always the mean over all workers' tokens",
    "include_num_input_tokens_seen": "num_tokens is always logged",
    "disable_tqdm": "the terminal's own line shows how far training is",
    "remove_unused_columns": "the trainer needs every column of its rows",
    "use_cache": "nothing is generated in training",
    "padding_free": "set {stage}.training.engine=packed",
    "do_train": "the job trains",
    "ignore_data_skip": "a resumed training takes each row as often as the plan says",
    "resume_from_checkpoint": "the same command goes on from the last checkpoint",
    "restore_callback_states_from_checkpoint": "no callback here keeps a state of its own",
    "local_rank": _PROCESS_GROUP,
    "ddp_backend": _PROCESS_GROUP,
    "ddp_timeout": _PROCESS_GROUP,
    "deepspeed": _SHARDING,
    "fsdp": _SHARDING,
    "fsdp_config": _SHARDING,
    "parallelism_config": _SHARDING,
    "accelerator_config": "rows are divided over the workers by the plan",
    "label_smoothing_factor": "a loss that smooths labels has a field for it: dpo.label_smoothing",
}
_FAMILIES = {
    _CHECKPOINTS: (
        "enable_jit_checkpoint",
        "save_on_each_node",
        "save_only_model",
        "save_steps",
        "save_strategy",
        "save_total_limit",
    ),
    _NO_HUB: (
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "push_to_hub",
    ),
    _OWN_LOADER: (
        "dataloader_drop_last",
        "dataloader_in_order",
        "dataloader_multiprocessing_context",
        "dataloader_num_workers",
        "dataloader_persistent_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "length_column_name",
        "train_sampling_strategy",
    ),
    NO_EVALUATION: EVALUATION,
    NO_DATASET: ("dataset_num_proc",),
}
REFUSED = _FIELDS | _PLATFORM | {name: reason for reason, names in _FAMILIES.items() for name in names}
"""Those of every configuration that are not passed through, and what to do instead."""


def passed_by(method: Method) -> frozenset[str]:
    """All options that a method passes through."""
    return (PASSED | method.passed) - method.lacks


def refused_by(method: Method) -> dict[str, str]:
    """All options that a method refuses, and what to do instead."""
    found = REFUSED | dict(method.refused)
    return {name: reason for name, reason in found.items() if name not in method.lacks}


def check_trl_options(method: Method, names: Iterable[str]) -> None:
    """Refuses pass-through options that would do nothing, or that have another place.

    Raises:
        UserError: Naming the option, and what to set instead.
    """
    passed, refused = passed_by(method), refused_by(method)
    for name in names:
        option = f"{method.name}.training.trl.{name}"
        if name in refused:
            raise UserError(f"{option}: not passed through; {refused[name].format(stage=method.name)}")
        if name not in passed:
            close = difflib.get_close_matches(name, passed | refused.keys(), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"{option}: {method.name} takes no such option of TRL's{hint}")
