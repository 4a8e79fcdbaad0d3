"""The model that is trained, and how conversations become its tokens. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from zephyr_ray.config.section import Section, compute


class Lora(Section):
    r: int = Field(16, ge=1)
    """Rank of the adapter."""
    alpha: int = Field(16, ge=1)
    """Scale of the adapter: its output is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input in SFT. DPO runs without it: with dropout, the reference would be another
    model."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get an adapter; all-linear: all of them except the output layer."""
    load_in_4bit: bool = False
    """QLoRA: hold the frozen base weights in 4-bit NF4 (bitsandbytes)."""


class ModelSection(Section):
    path: str | None = None
    """The supervised model that DPO starts from, which is also its frozen reference: a folder, URI or hub id. None: the
    checkpoint of this run's `sft` stage."""
    revision: str | None = None
    """Branch, tag or commit, if `path` is a hub id."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the weights in training. auto: bfloat16 on a GPU, float32 on a CPU."""
    attn_implementation: str = compute("sdpa")
    """Attention implementation, by transformers' name."""
    lora: Lora | None = None
    """Train a LoRA adapter instead of all weights."""


class Chat(Section):
    template: str = "zephyr"
    """Chat template: `zephyr`, `model` (the tokenizer's own), or the path of a Jinja file."""
    tokenization: Literal["modern", "zephyr_legacy"] = "modern"
    """modern: exactly what the template writes, up to the completion's end-of-sequence token. zephyr_legacy: as the
    published Zephyr was trained: BOS first, an empty system turn if there is none, a newline and a second end-of-
    sequence token after the completion, and pairs truncated as in TRL 0.7."""
