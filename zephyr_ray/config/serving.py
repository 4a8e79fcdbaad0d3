"""A model on Ray Serve and vLLM: what recipes and the chat endpoint both say of one. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
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


_COMPUTE = frozenset(
    (
        "aggregate_engine_logging",
        "async_scheduling",
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "cudagraph_capture_sizes",
        "data_parallel_backend",
        "data_parallel_size",
        "device_ids",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "hf_token",
        "kv_cache_memory_bytes",
        "kv_offloading_size",
        "max_cudagraph_capture_size",
        "max_num_batched_tokens",
        "max_num_queued_reqs",
        "max_num_queued_tokens",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "num_gpu_blocks_override",
        "numa_bind",
        "optimization_level",
        "pipeline_parallel_size",
        "renderer_num_workers",
        "safetensors_load_strategy",
        "scheduling_policy",
        "stream_interval",
        "tensor_parallel_size",
        "use_tqdm_on_load",
    )
)
"""Engine options that say how fast and in how much memory an engine computes. All others count as changing what a
model answers."""


def semantic_engine(options: Mapping[str, Any]) -> dict[str, Any]:
    """The engine options that change what a model answers: quantization, hf_overrides, kv_cache_dtype ..."""
    return {name: value for name, value in options.items() if name not in _COMPUTE}


class ServedOnVllm(Section):
    """A model, and the engines that run it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    """Name of the model in requests and rows."""
    revision: str | None = None
    """Branch, tag or commit, if the model is a hub id."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type that the model computes in. auto: vLLM's choice, which is bfloat16 for weights saved in float32."""
    max_model_len: int | None = Field(None, ge=16)
    """Maximum tokens of prompt plus completion. None: what the model's config allows."""
    engine: dict[str, Any] = compute({})
    """Further engine options, by vLLM's own names (tensor_parallel_size, gpu_memory_utilization, enforce_eager ...).
    Those that change what the model answers (quantization, hf_overrides ...) are part of a stage's fingerprint."""
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
