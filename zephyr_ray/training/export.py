"""Reads a trainer -> checkpoint/: a Hugging Face folder that transformers and vLLM load as it is."""

from __future__ import annotations

import json
import os
import posixpath
import shutil
from typing import Any

import pyarrow.fs as pafs
import torch

from zephyr_ray.artifacts import Artifact
from zephyr_ray.recipe import Recipe
from zephyr_ray.training.model import is_adapter, merge_adapter, without_adapter

ADAPTER_FOLDER = "adapter"


def write_checkpoint(
    trainer: Any, recipe: Recipe, output: Artifact, stage: str, model_path: str, scratch: str
) -> None:
    """Writes the trained weights to `<stage>/checkpoint/`. All ranks take part in gathering; rank 0 writes.

    An adapter is merged into its base, so that the folder loads anywhere; the adapter itself lies in
    `checkpoint/adapter/`.
    """
    folder = os.path.join(scratch, "export")
    trainer.save_model(folder)
    if trainer.is_world_process_zero():
        if recipe.model.lora is not None:
            folder = _merge(folder, model_path, os.path.join(scratch, "merged"))
        tokenizer = trainer.processing_class
        tokenizer.save_pretrained(folder)
        _remove_trainer_files(folder)
        write_generation_config(folder, tokenizer)
        with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as stream:
            stream.write(model_card(trainer, recipe, stage, model_path))
        target = posixpath.join(output.path, "checkpoint")
        output.run.filesystem.create_dir(target, recursive=True)
        pafs.copy_files(folder, target, destination_filesystem=output.run.filesystem)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def write_generation_config(folder: str, tokenizer: Any) -> None:
    """Generation stops at the token that ended every answer in training."""
    from transformers import GenerationConfig

    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
    ).save_pretrained(folder)


def model_card(trainer: Any, recipe: Recipe, stage: str, model_path: str) -> str:
    """The README.md of a checkpoint: where it comes from, how it was trained, its last metrics."""
    section = recipe.sft if stage == "sft" else recipe.dpo
    assert section is not None
    last = next((row for row in reversed(trainer.state.log_history) if "loss" in row), {})
    start = f"the adapter {model_path}, merged into its base model" if is_adapter(model_path) else model_path
    lines = [
        "---",
        "library_name: transformers",
        f"base_model: {json.dumps(model_path)}",
        f"tags: [zephyr_ray, {stage}]",
        "---",
        "",
        f"# {stage.upper()} checkpoint",
        "",
        f"Trained by zephyr_ray from {start}.",
    ]
    if recipe.model.lora is not None:
        lines.append(
            f"These are whole weights: a LoRA adapter (r={recipe.model.lora.r}, alpha={recipe.model.lora.alpha}) was "
            f"trained on that model and merged into it; the adapter alone lies in `{ADAPTER_FOLDER}/`."
        )
    lines += ["", "| setting | value |", "| --- | --- |"]
    plain = section.model_dump(mode="json", exclude={"training"})
    lines += [f"| {name} | {value} |" for name, value in plain.items() if value is not None]
    lines += ["", "| metric at the last step | value |", "| --- | --- |"]
    lines += [f"| {name} | {value:.6g} |" for name, value in last.items() if isinstance(value, int | float)]
    return "\n".join(lines) + "\n"


def _merge(adapter: str, model_path: str, target: str) -> str:
    base = without_adapter(model_path)
    merge_adapter(base, adapter, target)
    shutil.copytree(
        adapter, os.path.join(target, ADAPTER_FOLDER), ignore=shutil.ignore_patterns("checkpoint-*", "training_args.bin")
    )
    return target


def _remove_trainer_files(folder: str) -> None:
    for name in ("training_args.bin",):
        if os.path.exists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))
