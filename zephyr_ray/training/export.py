"""The finished model as checkpoint/: a Hugging Face folder that transformers and vLLM load as it is."""

from __future__ import annotations

import json
import os
import posixpath
import shutil
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from zephyr_ray.answers import end_tokens
from zephyr_ray.pipeline.weights import weights_id
from zephyr_ray.training.model import adapter_base, is_adapter, merge_adapter, whole_weights

if TYPE_CHECKING:
    from zephyr_ray.training.task import TrainJob

ADAPTER_FOLDER = "adapter"
_TRAINER_FILES = ("training_args.bin",)


def write_checkpoint(trainer: Any, job: TrainJob, scratch: str) -> str | None:
    """Writes the trained weights to the checkpoint's folder. All ranks take part in gathering them.

    Rank 0 writes, which takes minutes, and nobody waits for it: a collective would run out of time. An adapter is
    merged into its base, so that the folder loads anywhere; the adapter itself lies in `checkpoint/adapter/`.

    Returns:
        The identity of the weights (`weights_id`) on rank 0, None on the others.
    """
    folder = os.path.join(scratch, "export")
    trainer.save_model(folder)
    if not trainer.is_world_process_zero():
        return None
    if job.settings.model.lora is not None:
        base = whole_weights(job.model.local(), job.model.revision)
        folder = _merge(folder, base, os.path.join(scratch, "merged"))
    tokenizer = trainer.processing_class
    tokenizer.save_pretrained(folder)
    _remove_trainer_files(folder)
    write_generation_config(folder, tokenizer)
    with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as stream:
        stream.write(model_card(trainer, job))
    job.output.check_current()
    target = posixpath.join(job.output.path, job.output.new_checkpoint())
    filesystem = job.output.run.filesystem
    filesystem.create_dir(target, recursive=True)
    pafs.copy_files(folder, target, destination_filesystem=filesystem)
    return weights_id(folder)


def write_generation_config(folder: str, tokenizer: Any) -> None:
    """Generation stops at the token that ended every answer in training, where it is not the tokenizer's own, too."""
    from transformers import GenerationConfig

    ends = end_tokens(tokenizer)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else ends[0],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
    ).save_pretrained(folder)


def model_card(trainer: Any, job: TrainJob) -> str:
    """The README.md of a checkpoint: where it comes from, how it was trained, its last metrics."""
    section, lora, model = job.settings.section, job.settings.model.lora, job.model
    last: dict[str, Any] = next((row for row in reversed(trainer.state.log_history) if "loss" in row), {})
    start = f"{model.path}@{model.revision}" if model.revision else model.path
    if is_adapter(model.local()):
        start = f"the adapter {start}, merged into its base model {adapter_base(model.local())}"
    lines = [
        "---",
        "library_name: transformers",
        f"base_model: {json.dumps(model.path)}",
        f"tags: [zephyr_ray, {job.stage}]",
        "---",
        "",
        f"# {job.stage.upper()} checkpoint",
        "",
        f"Trained by zephyr_ray from {start}.",
    ]
    if lora is not None:
        lines.append(
            f"These are whole weights: a LoRA adapter (r={lora.r}, alpha={lora.alpha}) was trained on that model "
            f"and merged into it; the adapter alone lies in `{ADAPTER_FOLDER}/`."
        )
    lines += ["", "| setting | value |", "| --- | --- |"]
    plain = section.model_dump(mode="json", exclude={"training"})
    lines += [f"| {name} | {value} |" for name, value in plain.items() if value is not None]
    lines += ["", "| metric at the last step | value |", "| --- | --- |"]
    lines += [f"| {name} | {value:.6g} |" for name, value in last.items() if isinstance(value, int | float)]
    return "\n".join(lines) + "\n"


def _merge(adapter: str, base: str, target: str) -> str:
    """A folder of whole weights, with the adapter beside them; in float32 arithmetic, whatever training ran in."""
    unset_hf_deepspeed_config()  # or under ZeRO-3 every model would be loaded in shards, with ranks that are not here
    merge_adapter(base, adapter, target)
    shutil.copytree(adapter, os.path.join(target, ADAPTER_FOLDER), ignore=shutil.ignore_patterns(*_TRAINER_FILES))
    return target


def _remove_trainer_files(folder: str) -> None:
    for name in _TRAINER_FILES:
        if os.path.exists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))
