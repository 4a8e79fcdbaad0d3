"""A model on Ray Serve and vLLM: what recipes and the chat endpoint both say of one. Imports nothing heavy."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from zephyr_ray.config.section import Section, compute

REFUSED = {
    "trust_remote_code": "code that comes with a model is never run",
    "load_format": "weights are read from safetensors only",
    "model": "the model has a field of its own",
    "served_model_name": "set name",
    "tokenizer": "the tokenizer of the model's own folder is the one that training used",
    "chat_template": "the template of the model's own folder is the one that training used",
    "enable_prompt_embeds": "a prompt is text or token ids",
    "lora_modules": "adapters are a field of the chat endpoint",
}
"""Engine options that cannot be set, and why."""


class ServedOnVllm(Section):
    """A model, and the engines that run it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    """Name of the model in requests and rows."""
    revision: str | None = None
    """Branch, tag or commit, if the model is a hub id."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the weights. auto: as they were saved."""
    max_model_len: int | None = Field(None, ge=16)
    """Maximum tokens of prompt plus completion. None: what the model's config allows."""
    engine: dict[str, Any] = compute({})
    """Further engine options, by vLLM's own names (tensor_parallel_size, gpu_memory_utilization, enforce_eager ...)."""
    accelerator: Literal["cpu", "gpu"] = compute("gpu")
    """Where the engines run."""
    kv_cache_gib: int = compute(1, ge=1)
    """On a CPU: GiB of memory for the KV cache of each engine. On a GPU set `engine.gpu_memory_utilization`."""
    min_replicas: int = compute(1, ge=1)
    """Replicas that Ray Serve starts with, and never goes below."""
    max_replicas: int = compute(1, ge=1)
    """Maximum replicas; Ray Serve adds them under load."""
    labels: dict[str, str] = compute({})
    """Ray node labels that the engines' nodes must have."""

    @field_validator("engine")
    @classmethod
    def _has_no_option_of_ours(cls, engine: dict[str, Any]) -> dict[str, Any]:
        for option in engine:
            if option in REFUSED:
                raise ValueError(f"engine.{option} cannot be set: {REFUSED[option]}")
        return engine

    @model_validator(mode="after")
    def _most_is_not_below_fewest(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"{self.name}: max_replicas={self.max_replicas} is below min_replicas={self.min_replicas}")
        return self
