"""Reads a model -> whether packed rows give it the same log-probs as sequences alone. If not, one line says why."""

from __future__ import annotations

from typing import Any

import torch

from zephyr_ray.errors import UserError
from zephyr_ray.training.model import adapter_base, is_adapter
from zephyr_ray.training.packed_layout import pack

_PLAIN_LAYERS = {"full_attention", "sliding_attention"}


def check_folder(path: str, revision: str | None) -> None:
    """`check_packable` by the configuration of a folder or hub id alone, adapter or not, before anything is loaded."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    if is_adapter(path):
        path, revision = adapter_base(path), None
    config = AutoConfig.from_pretrained(path, revision=revision)
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        check_packable(config, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])


def check_packable(config: Any, model_class: Any, longest: int = 1) -> None:
    """Refuses models whose attention is not an exact function of what each token may see.

    Args:
        config: A causal language model's configuration.
        model_class: Its class.
        longest: Tokens of the longest sequence, a prompt with one completion.

    Raises:
        UserError: Naming the model's type and what is in the way.
    """
    config = config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or _PLAIN_LAYERS)
    window = getattr(config, "sliding_window", None) if "sliding_attention" in layers else None
    if not model_class._can_set_attn_implementation():
        raise _refusal(config, "its attention does not use transformers' attention interface (ALiBi, for example)")
    if layers - _PLAIN_LAYERS:
        raise _refusal(config, f"it has layers of type {', '.join(sorted(layers - _PLAIN_LAYERS))}")
    if window is not None and window < longest:
        raise _refusal(config, f"its sliding window of {window} tokens is shorter than a sequence of {longest}")
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise _refusal(config, "it caps attention scores (attn_logit_softcapping)")
    if getattr(config, "attention_dropout", None):
        raise _refusal(config, f"attention_dropout is {config.attention_dropout}")


@torch.no_grad()
def check_equals_unpacked(model: Any, multiple: int = 1) -> None:
    """Compares log-probs of a small packed row with those of each sequence alone, on the model as it is.

    It finds what no list of names can: a model that reads positions or neighbours in a way of its own. Log-probs are
    compared in their mean, because 16-bit ones differ between any two shapes of a batch.

    Args:
        model: A model with a packed forward (`add_packed_forward`), in evaluation mode.
        multiple: What the row's length is filled up to.

    Raises:
        UserError: They differ.
    """
    config = model.config.get_text_config()
    token = torch.Generator().manual_seed(0)
    prompts = [torch.randint(config.vocab_size, (length,), generator=token).tolist() for length in (5, 1, 9)]
    branches = [[torch.randint(config.vocab_size, (n,), generator=token).tolist() for n in (3, 7)] for _ in prompts]
    row = pack(prompts, branches, multiple).to(model.device)
    packed = model(packed_row=row).log_probs[0].float()
    alone = torch.cat(
        [_alone(model, p, branch) for p, group in zip(prompts, branches, strict=True) for branch in group]
    )
    difference = float((packed - alone).abs().mean())
    narrow = model.dtype != torch.float32 or torch.is_autocast_enabled(model.device.type)
    if not difference < (0.1 if narrow else 1e-4):
        raise _refusal(config, f"packed and plain log-probs differ by {difference:.2g} per token")


def _alone(model: Any, prompt: list[int], branch: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt + branch], device=model.device)
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    log_probs = model(input_ids=ids, labels=labels, use_cache=False, fused_lm_head=True).log_probs[0]
    return log_probs[len(prompt) - 1 :].float()


def _refusal(config: Any, reason: str) -> UserError:
    problem = f"training.engine=packed cannot take a model of type {config.model_type}: {reason}"
    return UserError(f"{problem}; training.engine=padded works")
