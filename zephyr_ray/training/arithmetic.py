"""Reads a recipe -> the arithmetic that log-probs are computed in. Imports nothing heavy: it is part of a fingerprint.

Policy and reference of a DPO run must be computed alike: between two sound ways to compute in bfloat16 a completion's
log-prob differs by tenths of a nat, which a run would keep as an error of its margins.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from zephyr_ray.config.model import ModelSection
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.config.training import Training

Dtype = Literal["float32", "bfloat16"]


class Arithmetic(NamedTuple):
    """How a model that is trained computes."""

    dtype: Dtype
    """Of matrix products."""
    weights: Dtype
    """As the model holds them, an adapter's own aside."""
    autocast: bool
    """Whether a forward pass runs in torch's autocast."""


def arithmetic(model: ModelSection, training: Training) -> Arithmetic:
    """bfloat16 on a GPU and float32 on a CPU, unless the recipe says.

    DeepSpeed keeps float32 copies of 16-bit weights and runs without autocast. Plain data parallelism has no copies,
    and small updates would be lost in 16-bit weights: what is trained is float32, and autocast narrows the products.
    """
    dtype: Dtype = model.dtype if model.dtype != "auto" else "bfloat16" if training.gpus_per_worker > 0 else "float32"
    sharded = training.zero_stage > 0
    return Arithmetic(
        dtype=dtype,
        weights=dtype if sharded or model.lora is not None else "float32",
        autocast=dtype == "bfloat16" and not sharded,
    )


def reference_arithmetic(recipe: Recipe) -> dict[str, Any]:
    """All that rounds the reference's log-probs, as JSON values: the policy's arithmetic, engine and attention.

    In float32 every engine, attention and device gives the same log-probs within 1e-4, and none of them is named.
    """
    training = recipe.dpo.training
    found = arithmetic(recipe.model, training)
    if found.dtype == "float32":
        return {"dtype": "float32"}
    device = "cuda" if recipe.reference_logps.gpus_per_worker > 0 else "cpu"
    attention = training.packed_attention if training.engine == "packed" else recipe.model.attn_implementation
    if attention == "auto" and device == "cpu":
        attention = "sdpa"
    padding = {"pad_to_multiple_of": training.trl.get("pad_to_multiple_of")} if training.engine == "padded" else {}
    compiled = {"compile": True} if training.compile else {}
    return found._asdict() | {"device": device, "engine": training.engine, "attention": attention} | padding | compiled
