"""The arithmetic that models are trained and scored in. Imports nothing heavy: it is part of a fingerprint.

Policy and reference of a DPO run must be computed alike: between two sound ways to compute in bfloat16 a completion's
log-prob differs by tenths of a nat, which a run would keep as an error of its margins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from zephyr_ray.config.model import ModelSection
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


@dataclass(frozen=True)
class Scoring:
    """How a frozen model's log-probs are computed: as the policy that meets them computes its own."""

    arithmetic: Arithmetic
    load_in_4bit: bool
    attn_implementation: str
    """transformers' attention, of padded batches."""
    engine: Literal["packed", "padded"]
    packed_attention: Literal["auto", "sdpa", "flex", "flash"]
    tokens_per_micro_batch: int
    """Packed: most tokens of a forward pass."""
    compile: bool
    pad_to_multiple_of: int | None
    """Padded: what a batch's length is a multiple of."""
    ld_alpha: float | None
    """As in `losses.completion_sums`."""

    def identity(self, device: Literal["cpu", "cuda"]) -> dict[str, Any]:
        """All that rounds the log-probs, as JSON values: arithmetic, device, engine and attention.

        In float32 every engine, attention and device gives the same log-probs within 1e-4, and none of them is named.
        """
        if self.arithmetic.dtype == "float32":
            return {"dtype": "float32"}
        attention = self.packed_attention if self.engine == "packed" else self.attn_implementation
        if attention == "auto" and device == "cpu":
            attention = "sdpa"
        named = self.arithmetic._asdict() | {"device": device, "engine": self.engine, "attention": attention}
        padding = {"pad_to_multiple_of": self.pad_to_multiple_of} if self.engine == "padded" else {}
        return named | padding | ({"compile": True} if self.compile else {})

    def of_exported(self) -> Scoring:
        """How policy and reference are scored on held-out pairs: as training scores its reference, save for two things.

        Weights are whole, not in 4 bits: so is the exported policy. And log-probs are the plain sums of the definition,
        whatever `ld_alpha` makes of them in the loss.
        """
        return replace(self, load_in_4bit=False, ld_alpha=None)


def scoring(model: ModelSection, training: Training) -> Scoring:
    """How the reference of a training is scored.

    Args:
        model: Of policy and reference.
        training: How the policy is trained.
    """
    return Scoring(
        arithmetic=arithmetic(model, training),
        load_in_4bit=model.lora is not None and model.lora.load_in_4bit,
        attn_implementation=model.attn_implementation,
        engine=training.engine,
        packed_attention=training.packed_attention,
        tokens_per_micro_batch=training.tokens_per_micro_batch,
        compile=training.compile,
        pad_to_multiple_of=training.trl.get("pad_to_multiple_of"),
        ld_alpha=training.trl.get("ld_alpha"),
    )
