"""Small random models and pairs for the tests of the packed engine."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
)

VOCAB = 320
WINDOW = 9
"""Tokens that a token of a sliding layer sees: fewer than most sequences here have."""
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "mistral": lambda: MistralConfig(**_SHAPE, sliding_window=None),
    "mistral_window": lambda: MistralConfig(**_SHAPE, sliding_window=WINDOW),
    "llama": lambda: LlamaConfig(**_SHAPE),
    "qwen2": lambda: Qwen2Config(**_SHAPE),
    "qwen2_window": lambda: Qwen2Config(**_SHAPE, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen3": lambda: Qwen3Config(**_SHAPE, head_dim=8),
    "gemma": lambda: GemmaConfig(**_SHAPE, head_dim=8),
    "gemma2": lambda: Gemma2Config(
        **_SHAPE,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=5.0,
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_SHAPE,
        head_dim=8,
        sliding_window=WINDOW,
        sliding_window_pattern=2,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0},
        },
    ),
    "mixtral": lambda: MixtralConfig(**_SHAPE, num_local_experts=4),
    "qwen2_moe": lambda: Qwen2MoeConfig(
        **_SHAPE, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16
    ),
}


def make_model(family: str, seed: int = 0, attention: str = "sdpa", **shape: Any) -> Any:
    """A model whose weights are large enough that what a token sees shows in its log-probs."""
    torch.manual_seed(seed)
    config = CONFIGS[family]()
    config.initializer_range = 0.2
    for name, value in shape.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def make_classifier(family: str, attention: str = "sdpa") -> Any:
    """The same as a reward model."""
    torch.manual_seed(0)
    config = CONFIGS[family]()
    config.initializer_range, config.num_labels = 0.2, 1
    return AutoModelForSequenceClassification.from_config(config, attn_implementation=attention).eval()


def make_pairs(count: int, seed: int, longest: int = 24) -> list[dict[str, list[int]]]:
    """Pairs of random lengths. Among them one-token prompts and completions, and equal prompts."""
    rng = np.random.default_rng(seed)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    pairs = [
        {name: rng.integers(3, VOCAB, size=rng.integers(1, longest)).tolist() for name in names} for _ in range(count)
    ]
    pairs[0]["prompt_ids"] = [5]
    pairs[1 % count]["chosen_ids"] = [6]
    pairs[2 % count]["rejected_ids"] = [7]
    pairs[-1]["prompt_ids"] = list(pairs[-2 % count]["prompt_ids"])
    return pairs


def make_unpaired(count: int, seed: int) -> list[dict[str, Any]]:
    """Completions of random lengths, of which each is desirable or not."""
    labels = np.random.default_rng(seed).random(count) < 0.6
    return [
        {"completion_id": f"{number:02d}", "prompt_ids": pair["prompt_ids"], "label": bool(label)}
        | {"completion_ids": pair["chosen_ids"]}
        for number, (pair, label) in enumerate(zip(make_pairs(count, seed), labels, strict=True))
    ]


def make_groups(count: int, seed: int, longest: int = 24) -> list[dict[str, Any]]:
    """Prompts with two to five completions of random lengths, and their pairs by scores that may be equal."""
    rng = np.random.default_rng(seed)

    def ids() -> list[int]:
        return rng.integers(3, VOCAB, size=rng.integers(1, longest)).tolist()

    groups = []
    for number in range(count):
        scores = [9, 1, *rng.integers(0, 10, size=number % 4).tolist()]
        pairs = [(a, b) for a, b in itertools.permutations(range(len(scores)), 2) if scores[a] > scores[b]]
        group = {"group_id": f"{number:02d}", "prompt_ids": ids(), "completions": [ids() for _ in scores]}
        groups.append(group | {side: [pair[at] for pair in pairs] for at, side in enumerate(("chosen", "rejected"))})
    return groups


def make_dialogues(count: int) -> list[dict[str, Any]]:
    """Dialogues of random lengths; the assistant wrote a random part of each."""
    rng = np.random.default_rng(3)
    dialogues = []
    for number in range(count):
        length = int(rng.integers(2, 40))
        mask = rng.random(length) < 0.6
        mask[-1] = True
        ids = rng.integers(3, VOCAB, size=length).tolist()
        dialogues.append({"dialogue_id": f"{number:02d}", "input_ids": ids, "assistant_mask": mask.tolist()})
    return dialogues
