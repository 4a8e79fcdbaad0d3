"""What a decoder layer of Mistral-7B's shape keeps for its backward pass: bytes for each token, on the CPU.

    python benchmarks/activation_memory.py

Counts the storages that torch saves between the two passes, each once and no weight. Attention is torch's own with
grouped heads, which keeps what FlexAttention keeps: query, key, value, output and a log-sum-exp. What a GPU holds
beside that while a pass runs (gradients, the kernels' scratch) is not in it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, MistralConfig
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer, MistralRotaryEmbedding

ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Shapes = Counter[tuple[tuple[int, ...], torch.dtype]]


def grouped_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    narrow = query.dtype if not torch.is_autocast_enabled("cpu") else torch.get_autocast_dtype("cpu")
    query, key, value = (states.to(narrow) for states in (query, key, value))
    out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None


def make_layer(dtype: torch.dtype) -> tuple[Any, MistralConfig]:
    """A decoder layer and its configuration."""
    AttentionInterface.register("grouped", grouped_attention)
    config = MistralConfig(
        hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8, sliding_window=None
    )
    config._attn_implementation = "grouped"
    layer = MistralDecoderLayer(config, layer_idx=0).to(dtype)
    return layer.train(), config


def add_adapter(layer: Any, rank: int) -> None:
    """A float32 adapter on frozen weights, as the trainer has it without ZeRO."""
    from peft import LoraConfig, inject_adapter_in_model

    layer.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=ADAPTED), layer)
    for weight in layer.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def kept(layer: Any, config: MistralConfig, tokens: int, autocast: bool) -> Shapes:
    """Shapes and dtypes of what a forward pass keeps, and the bytes of each."""
    states = torch.randn(1, tokens, config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
    positions = torch.arange(tokens)[None]
    rotary = MistralRotaryEmbedding(config)(states, positions)
    weights = {weight.untyped_storage().data_ptr() for weight in layer.parameters()}
    storages: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in weights:
            storages.setdefault(storage, tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        layer(states, position_embeddings=rotary, attention_mask=None)
    found: Shapes = Counter()
    for tensor in storages.values():
        if tokens in tensor.shape:  # an adapter's narrowed weights are none of the tokens'
            found[tuple(tensor.shape), tensor.dtype] += tensor.untyped_storage().nbytes()
    return found


def report(name: str, found: Shapes, tokens: int, shapes: bool) -> None:
    total = sum(found.values()) / tokens
    print(f"{name}: {total:,.0f} bytes for each token and layer, {32 * total / 1e6:.2f} MB for each token of 32 layers")
    for (shape, dtype), size in sorted(found.items(), key=lambda entry: -entry[1]) if shapes else ():
        print(f"    {size / tokens:>8,.0f}  {str(dtype).removeprefix('torch.'):<9} {shape}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=131, help="a number that is no width of the model")
    parser.add_argument("--rank", type=int, default=128, help="of the adapter")
    parser.add_argument("--shapes", action="store_true", help="what is kept, by shape")
    arguments = parser.parse_args()
    ways: dict[str, tuple[Callable[[Any], None], bool]] = {
        "all weights, bfloat16": (lambda layer: None, False),
        "adapter": (lambda layer: add_adapter(layer, arguments.rank), True),
    }
    for name, (prepare, autocast) in ways.items():
        layer, config = make_layer(torch.bfloat16)
        prepare(layer)
        report(name, kept(layer, config, arguments.tokens, autocast), arguments.tokens, arguments.shapes)


if __name__ == "__main__":
    main()
