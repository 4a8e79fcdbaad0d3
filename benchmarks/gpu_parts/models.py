"""Random models of Mistral-7B's shape, and the ways to compute completions' log-probs that the parts compare."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from gpu_parts.bench import Bench, Pairs, Sizes, batches

from zephyr_ray.training.packed.attention import Backend, row_multiple
from zephyr_ray.training.packed.layout import PackedRow, pack
from zephyr_ray.training.packed.logps import add_packed_forward
from zephyr_ray.training.token_batching import partition

Scored = Iterator[tuple[list[int], list[tuple[torch.Tensor, torch.Tensor]]]]
"""The numbers of a few pairs, and the log-probs of their chosen and their rejected tokens."""


def make_model(bench: Bench, layers: int, dtype: torch.dtype, seed: int = 0) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    sizes: Sizes = bench.sizes
    config = MistralConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.inner,
        num_hidden_layers=layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        max_position_embeddings=2048,
        sliding_window=None,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    with torch.device(bench.device):
        return MistralForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa").eval()


@contextlib.contextmanager
def packed(model: Any, backend: Backend) -> Iterator[None]:
    """Inside, a model with TRL's fused head also takes packed rows; afterwards it is as it was."""
    forward = model.forward
    add_packed_forward(model, backend)
    try:
        yield
    finally:
        model.forward = forward
        model.base_model._forward_hooks.popitem()


def packed_scores(model: Any, pairs: Pairs, budget: int, backend: Backend) -> Scored:
    """Our way: rows of at most so many tokens."""
    (rows,) = partition([sum(map(len, pair.values())) for pair in pairs], 1, budget)
    for indices in rows:
        row = pair_row([pairs[index] for index in indices], row_multiple(backend))
        yield indices, row_scores(model, row)


def row_scores(model: Any, row: PackedRow) -> list[tuple[torch.Tensor, torch.Tensor]]:
    log_probs = model(packed_row=row.to(model.device)).log_probs[0].float()
    parts = log_probs.split(row.branch_lengths)
    return list(zip(parts[::2], parts[1::2], strict=True))


def pair_row(pairs: Pairs, multiple: int, align: int = 1) -> PackedRow:
    """Pairs in one row, each of them from a multiple of `align` on."""
    prompts, branches = [], []
    for pair in pairs:
        prompts.append(pair["prompt_ids"])
        branches.append([pair["chosen_ids"], pair["rejected_ids"]])
        rest = -sum(map(len, pair.values())) % align
        if rest:
            prompts.append([0] * rest)
            branches.append([])
    return pack(prompts, branches, multiple)


def plain_scores(model: Any, pairs: Pairs) -> Scored:
    """Every sequence alone, from the logits."""
    for index, pair in enumerate(pairs):
        found = [plain_sequence(model, pair["prompt_ids"], pair[side]) for side in ("chosen_ids", "rejected_ids")]
        yield [index], [(found[0], found[1])]


def plain_sequence(model: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt + completion], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(dim=-1).gather(1, ids[0, len(prompt) :, None])[:, 0]


def padded_scores(model: Any, pairs: Pairs, batch: int = 4) -> Scored:
    """TRL's way: its collator and its fused head, a few pairs at a time."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    collate = DataCollatorForPreference(pad_token_id=0)
    for indices in batches(len(pairs), batch):
        inputs = {name: value.to(model.device) for name, value in collate([pairs[i] for i in indices]).items()}
        log_probs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100),
            use_cache=False,
            fused_lm_head=True,
        ).log_probs.float()
        mask = inputs["completion_mask"][:, 1:].bool()
        found = [row[own] for row, own in zip(log_probs, mask, strict=True)]
        yield indices, list(zip(found[: len(indices)], found[len(indices) :], strict=True))
