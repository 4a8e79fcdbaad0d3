"""Loading a model from a folder, an adapter's folder or a hub id, in the same way for policy and reference."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.fingerprints import fingerprint_files
from zephyr_ray.pipeline.model_source import check_kind
from zephyr_ray.storage import cache_root

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from zephyr_ray.config.model import Lora, ModelSection

ADAPTER_CONFIG = "adapter_config.json"
_MODEL_FILES = ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt"]


def device_for(gpus_per_worker: float, field: str) -> str:
    """cuda or cpu, as the recipe asks.

    Raises:
        UserError: It asks for a GPU, and torch sees none. A CPU would compute in another arithmetic.
    """
    if gpus_per_worker > 0 and not torch.cuda.is_available():
        raise UserError(
            f"{field}.gpus_per_worker={gpus_per_worker:g}, but torch sees no GPU on this machine; set it to 0"
        )
    return "cuda" if gpus_per_worker > 0 else "cpu"


def device_of_actor(cpus: float, gpus: float, field: str) -> str:
    """As `device_for`, in an actor with so many logical CPUs, which on a CPU are the threads that torch uses."""
    device = device_for(gpus, field)
    if device == "cpu":
        torch.set_num_threads(max(1, int(cpus)))
    return device


def load_model(folder: str, section: ModelSection, dtype: torch.dtype, *, quantize: bool = False) -> PreTrainedModel:
    """A causal language model with the section's attention, its weights in `dtype` or in 4-bit.

    Raises:
        UserError: The folder holds no model that loads.
    """
    from transformers import AutoModelForCausalLM
    from transformers.integrations import is_deepspeed_zero3_enabled

    check_kind(f"model {folder}", folder)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": section.attn_implementation}
    if quantize:
        options["quantization_config"] = quantization(dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model {folder} does not load: {' '.join(str(error).split())[:300]}") from None
    if is_deepspeed_zero3_enabled():
        restore_buffers(model)
    return model


def check_caps_are_kept(config: Any, attn_implementation: str) -> None:
    """Refuses transformers' sdpa for a model with capped attention scores: it leaves the caps out without a word.

    Raises:
        UserError: Naming the setting.
    """
    config = config.get_text_config()
    if attn_implementation == "sdpa" and getattr(config, "attn_logit_softcapping", None) is not None:
        raise UserError(
            f"model.attn_implementation=sdpa leaves out the caps on attention scores (attn_logit_softcapping) that a "
            f"model of type {config.model_type} has; set model.attn_implementation=eager, or training.engine=packed"
        )


def restore_buffers(model: Any) -> None:
    """Gives a model that was made under ZeRO-3 what it computes of its configuration as a plain load has it.

    While DeepSpeed shards weights as they are made it narrows every tensor that is made, rotary frequencies too. In
    bfloat16 a token's angle is then wrong by up to 1/512 of it: by a radian and more from position 1,000 on.
    """
    from accelerate import init_empty_weights
    from transformers.modeling_utils import local_torch_dtype

    with init_empty_weights(include_buffers=False), local_torch_dtype(model.dtype):
        plain = type(model)(model.config)
    for name, buffer in plain.named_non_persistent_buffers():
        owner, _, own_name = name.rpartition(".")
        module = model.get_submodule(owner)
        setattr(module, own_name, buffer.to(getattr(module, own_name).device))


def widen_trained(model: Any) -> None:
    """Makes the weights that are trained float32, where no optimizer keeps a float32 copy of them.

    TRL makes an adapter on a quantized base bfloat16: steps of 5e-6 are less than half of the distance between two
    bfloat16 numbers near most of its weights, which would never move.
    """
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def quantization(dtype: torch.dtype) -> Any:
    """4-bit NormalFloat with double quantization (QLoRA, arXiv 2305.14314)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def lora_config(lora: Lora) -> Any:
    """PEFT's configuration of the recipe's adapter."""
    from peft import LoraConfig

    modules = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=modules, task_type="CAUSAL_LM"
    )


def whole_weights(path: str, revision: str | None = None) -> str:
    """A local folder of whole weights for a folder or hub id, which may hold an adapter.

    An adapter is merged into its base model once per machine, in float32 arithmetic, and stored in the base model's own
    type. A hub id is downloaded once per machine.

    Raises:
        UserError: The hub id, or the adapter's base model, cannot be had.
    """
    folder = _local(path, revision)
    if not is_adapter(folder):
        return folder
    target = os.path.join(cache_root(), "merged", fingerprint_files([folder]))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with FileLock(target + ".lock"):
        if not os.path.isdir(target):
            merge_adapter(adapter_base(folder), folder, target + ".partial")
            os.rename(target + ".partial", target)
    return target


def _local(path: str, revision: str | None) -> str:
    if os.path.isdir(path):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return snapshot_download(path, revision=revision, allow_patterns=_MODEL_FILES)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(f"model {path} cannot be downloaded: {' '.join(str(error).split())[:300]}") from None


def is_adapter(path: str) -> bool:
    return os.path.isfile(os.path.join(path, ADAPTER_CONFIG))


def adapter_base(path: str) -> str:
    """The base model that an adapter folder names."""
    with open(os.path.join(path, ADAPTER_CONFIG), encoding="utf-8") as stream:
        return json.load(stream)["base_model_name_or_path"]


def merge_adapter(base: str, adapter: str, target: str) -> None:
    """Writes base + adapter as one folder of whole weights, with the adapter's tokenizer where it has one."""
    from peft import PeftModel
    from transformers import AutoConfig, AutoTokenizer

    from zephyr_ray.config.model import ModelSection

    try:
        stored = getattr(AutoConfig.from_pretrained(base), "dtype", None) or torch.float32
        model = load_model(whole_weights(base), ModelSection(), torch.float32)
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload().to(stored)
    except (OSError, ValueError) as error:
        raise UserError(f"adapter {adapter} on {base} does not load: {' '.join(str(error).split())[:300]}") from None
    shutil.rmtree(target, ignore_errors=True)
    merged.save_pretrained(target)
    holder = adapter if os.path.isfile(os.path.join(adapter, "tokenizer_config.json")) else base
    AutoTokenizer.from_pretrained(holder).save_pretrained(target)
