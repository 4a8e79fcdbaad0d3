"""The finished model as checkpoint/: a Hugging Face folder that transformers and vLLM load as it is."""

from __future__ import annotations

import os
import posixpath
import shutil
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from zephyr_ray.answers import end_tokens
from zephyr_ray.pipeline.weights import weights_id
from zephyr_ray.training.methods import method_of
from zephyr_ray.training.model import merge_adapter, whole_weights

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
    if not method_of(job.stage).makes_reward_model:
        write_generation_config(folder, tokenizer)
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
