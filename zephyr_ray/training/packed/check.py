"""Checks that packed rows give a model the same log-probs as sequences alone. If not, one line says why."""

from __future__ import annotations

from typing import Any

import torch

from zephyr_ray.errors import UserError
from zephyr_ray.training.model import adapter_base, is_adapter
from zephyr_ray.training.packed.attention import BACKENDS, Backend, head_shapes
from zephyr_ray.training.packed.blocks import BLOCK
from zephyr_ray.training.packed.layout import PackedRow, pack

_PLAIN_LAYERS = {"full_attention", "sliding_attention"}


def check_folder(path: str, revision: str | None) -> None:
    """`check_packable` by the configuration of a folder or hub id alone, adapter or not, before anything is loaded."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    if is_adapter(path):
        path, revision = adapter_base(path), None
    config = AutoConfig.from_pretrained(path, revision=revision)
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        check_packable(config, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])


def check_packable(config: Any, model_class: Any) -> None:
    """Refuses models whose attention is not an exact function of what each token may see.

    Args:
        config: A causal language model's configuration.
        model_class: Its class.

    Raises:
        UserError: Naming the model's type and what is in the way.
    """
    config = config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or _PLAIN_LAYERS)
    if not model_class._can_set_attn_implementation():
        raise _refusal(config, "its attention does not use transformers' attention interface (ALiBi, for example)")
    if layers - _PLAIN_LAYERS:
        raise _refusal(config, f"it has layers of type {', '.join(sorted(layers - _PLAIN_LAYERS))}")
    if getattr(config, "attention_dropout", None):
        raise _refusal(config, f"attention_dropout is {config.attention_dropout}")


@torch.no_grad()
def check_equals_unpacked(model: Any, multiple: int = 1, align: int = 1) -> None:
    """Compares log-probs of a packed row with those of each sequence alone, on the model as it is.

    It finds what no list of names can: a model that reads positions or neighbours in a way of its own. The row has five
    of FlexAttention's blocks or more, full and partly visible ones, and prompts and branches lie across their borders.
    Of a model with a window of up to 1,024 tokens a sequence is longer than it. Log-probs are compared in their mean,
    because 16-bit ones differ between any two shapes of a batch.

    Args:
        model: A model with a packed forward (`add_packed_forward`), in evaluation mode.
        multiple: What the row's length is filled up to.
        align: The multiple at which a prompt starts.

    Raises:
        UserError: They differ.
    """
    config = model.config.get_text_config()
    token = torch.Generator().manual_seed(0)
    drawn = [
        [torch.randint(config.vocab_size, (length,), generator=token).tolist() for length in (prompt, *branches)]
        for prompt, branches in _lengths(config)
    ]
    prompts, branches = [parts[0] for parts in drawn], [parts[1:] for parts in drawn]
    row = pack(prompts, branches, multiple, align).to(model.device)
    packed = model(packed_row=row).log_probs[0].float()
    alone = torch.cat(
        [_alone(model, p, branch) for p, group in zip(prompts, branches, strict=True) for branch in group]
    )
    difference = float((packed - alone).abs().mean())
    narrow = model.dtype != torch.float32 or torch.is_autocast_enabled(model.device.type)
    if not difference < (0.1 if narrow else 1e-4):
        raise _refusal(config, f"packed and plain log-probs differ by {difference:.2g} per token")


def _lengths(config: Any) -> list[tuple[int, tuple[int, ...]]]:
    """Tokens of prompts and their two or three branches: 640 or more together, none longer than the model takes."""
    window = _window(config) or 0
    longest = max(270, window + 30 if window <= 1024 else 0)
    longest = min(longest, getattr(config, "max_position_embeddings", None) or longest)
    found: list[tuple[int, tuple[int, ...]]] = []
    while sum(prompt + sum(branches) for prompt, branches in found) < 5 * BLOCK:
        prompt = (max(longest - 120, longest // 2), 1, min(9, longest // 2))[len(found) % 3]
        third = (min(30, longest - prompt),) * (len(found) % 3 == 2)
        found.append((prompt, (min(120, longest - prompt), min(7, longest - prompt), *third)))
    return found


def _window(config: Any) -> int | None:
    """Tokens that a token of a sliding layer sees, where the model has such layers."""
    layers = getattr(config, "layer_types", None) or ["sliding_attention"]
    return (getattr(config, "sliding_window", None) or None) if "sliding_attention" in layers else None


def check_attention(config: Any, backend: Backend, device: torch.device, dtype: torch.dtype) -> None:
    """Compares a kernel's output and gradients, in the shape of the model's heads, with torch's own attention.

    The reference stage has no backward pass that could show what a kernel does wrong there. Where the model has windows
    or capped scores, so has what is compared: a window that is shorter than the sequences, and a bound that is small
    enough to matter to random scores.

    Raises:
        UserError: They differ by more than 2 % in bfloat16, 0.1 % in float32.
    """
    config = config.get_text_config()
    windows = [None, 100] if _window(config) else [None]
    softcap = None if getattr(config, "attn_logit_softcapping", None) is None else 1.0
    branches = [[[0] * length for length in parts] for _, parts in _lengths(config)]
    row = pack([[0] * prompt for prompt, _ in _lengths(config)], branches, BLOCK).to(device)
    for window in windows:
        _check_kernel(row, head_shapes(config), backend, dtype, window, softcap)


def _check_kernel(
    row: PackedRow,
    shape: tuple[int, int, int],
    backend: Backend,
    dtype: torch.dtype,
    window: int | None,
    softcap: float | None,
) -> None:
    device, (heads, key_heads, width) = row.tokens.device, shape
    noise = torch.Generator().manual_seed(0)
    shapes = [(1, count, row.tokens.shape[1], width) for count in (heads, key_heads, key_heads, heads)]
    *inputs, upstream = (torch.randn(shape, generator=noise).to(device, dtype) for shape in shapes)
    results = []
    for name in (backend, "sdpa"):
        leaves = [states.clone().requires_grad_() for states in inputs]
        out = BACKENDS[name](row, device, window)(*leaves, width**-0.5, softcap)
        out.backward(upstream)
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    bound = 1e-3 if dtype == torch.float32 else 2e-2
    for part, ours, theirs in zip(("output", "gradient", "gradient", "gradient"), *results, strict=True):
        error = float((ours.float() - theirs.float()).norm() / theirs.float().norm())
        if not error < bound:
            raise UserError(
                f"training.packed_attention={backend} is wrong on this machine: its {part} differs by {error:.2g} of "
                "that of torch's own attention; packed_attention=sdpa works"
            )


def _alone(model: Any, prompt: list[int], branch: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt + branch], device=model.device)
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    log_probs = model(input_ids=ids, labels=labels, use_cache=False, fused_lm_head=True).log_probs[0]
    return log_probs[len(prompt) - 1 :].float()


def _refusal(config: Any, reason: str) -> UserError:
    problem = f"training.engine=packed cannot take a model of type {config.model_type}: {reason}"
    return UserError(f"{problem}; training.engine=padded works")
