"""What one model on Ray Serve is (a run, a folder or a hub id), and the Ray Serve LLM configuration of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from ray.serve.llm import LLMConfig

    from zephyr_ray.pipeline.model_source import ModelSource

_REFUSED = {
    "trust_remote_code": "code that comes with a model is never run",
    "load_format": "weights are read from safetensors only",
    "model": "give path or run",
    "served_model_name": "give name",
    "tokenizer": "the tokenizer of the model's own folder is the one that training used",
    "chat_template": "the template of the model's own folder is the one that training used",
    "enable_prompt_embeds": "a prompt is text or token ids",
    "lora_modules": "give adapters",
}
_CPU_OPTIONS = {
    "enforce_eager": True,
    # With a seed and a prompt that is prefilled in chunks, vLLM 0.29 on a CPU loses its engine.
    "enable_chunked_prefill": False,
}


class ServedModel(BaseModel):
    """One model behind the endpoint: where it comes from, and how much of the cluster it may take."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    """What clients ask for in the field `model`."""
    run: str | None = None
    """Root of a run; its last finished checkpoint is served (dpo, else sft), or that of `stage`."""
    stage: str | None = None
    """Which of the run's checkpoints: the stage that made it (base, sft, dpo)."""
    path: str | None = None
    """A Hugging Face folder, its URI or a hub id, in place of a run."""
    revision: str | None = None
    """Branch, tag or commit, where the path is a hub id."""
    adapters: dict[str, str] = Field(default_factory=dict)
    """LoRA adapters by name: clients ask for them like models. Folders with safetensors."""
    accelerator: Literal["cpu", "gpu"] = "gpu"
    """What the engine runs on."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights. auto: as they were saved."""
    max_model_len: int | None = Field(None, ge=16)
    """Longest prompt and answer together, in tokens. None: what the model's config allows."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Ray node labels that the engines' nodes must carry."""
    kv_cache_gib: int = Field(1, ge=1)
    """Memory for keys and values on a CPU. On a GPU: engine.gpu_memory_utilization."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Further engine options by vLLM's own names (tensor_parallel_size, gpu_memory_utilization, enforce_eager ...)."""
    min_replicas: int = Field(1, ge=0)
    """Replicas that are always there. 0: none after downscale_delay_s without a request; the next request waits
    for an engine to start. A new deployment starts with one all the same, which shows whether it can."""
    max_replicas: int = Field(1, ge=1)
    """Replicas at most."""
    target_ongoing_requests: float = Field(16, gt=0)
    """Requests in progress per replica that autoscaling aims for."""
    upscale_delay_s: float = Field(10, ge=0)
    """How long the load must be above the target before replicas are added."""
    downscale_delay_s: float = Field(600, ge=0)
    """How long the load must be below it before replicas are taken away."""
    max_requests: int = Field(256, ge=1)
    """Requests that a replica has at once, running or waiting in its engine (which runs engine.max_num_seqs of them);
    the next one is answered 429."""
    drain_s: float = Field(120, ge=0)
    """How long a replica that is replaced or taken away may go on with its requests."""

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, engine: dict[str, Any]) -> dict[str, Any]:
        for option in engine:
            if option in _REFUSED:
                raise ValueError(f"engine.{option} cannot be set: {_REFUSED[option]}")
        return engine

    @model_validator(mode="after")
    def _check(self) -> ServedModel:
        if (self.run is None) == (self.path is None):
            raise ValueError(f"model {self.name}: give either run or path")
        if self.stage is not None and self.run is None:
            raise ValueError(f"model {self.name}: stage goes with run")
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"model {self.name}: max_replicas is below min_replicas")
        if self.name in self.adapters:
            raise ValueError(f"model {self.name}: an adapter has the model's own name")
        return self

    @property
    def names(self) -> list[str]:
        """Everything that clients can ask this model's replicas for."""
        return [self.name, *self.adapters]


def llm_config(model: ServedModel) -> LLMConfig:
    """The configuration of one model's deployment in Ray Serve LLM, its weights' fingerprint with it.

    Raises:
        UserError: There is no such model or adapter, or it is not one that can be served.
    """
    from ray.serve.config import AutoscalingConfig
    from ray.serve.llm import LLMConfig

    from zephyr_ray.serving.chat_replica import ChatServer

    source = _locate(model)
    engine = {
        "load_format": "safetensors",
        "dtype": model.dtype,
        "fingerprint_mode": "custom",
        "fingerprint_value": source.fingerprint,
        **({} if model.max_model_len is None else {"max_model_len": model.max_model_len}),
        **({} if model.revision is None else {"revision": model.revision}),
        **_lora(model),
        **(_CPU_OPTIONS if model.accelerator == "cpu" else {}),
        **model.engine,
    }
    autoscaling = AutoscalingConfig(
        min_replicas=model.min_replicas,
        max_replicas=model.max_replicas,
        initial_replicas=max(1, model.min_replicas),
        target_ongoing_requests=model.target_ongoing_requests,
        upscale_delay_s=model.upscale_delay_s,
        downscale_delay_s=model.downscale_delay_s,
        # With Ray's 10, a short delay would be over before a new replica's first requests are counted.
        metrics_interval_s=2,
    )
    return LLMConfig(
        model_loading_config={"model_id": model.name, "model_source": source.path},
        accelerator_config={"kind": model.accelerator},
        engine_kwargs=engine,
        server_cls=ChatServer,
        runtime_env=_runtime_env(model),
        experimental_configs={"stream_batching_interval_ms": 0},
        deployment_config={
            "autoscaling_config": autoscaling.model_dump(exclude_unset=True),
            # The replica's own guard holds the line at max_requests, with an answer that clients understand.
            "max_ongoing_requests": 10_000,
            "graceful_shutdown_timeout_s": model.drain_s,
            # A new checkpoint's replica is up before the old one goes.
            "max_surge_percent": 100,
            "health_check_period_s": 2,
            # The engine has a process of its own; this one only feeds it.
            "ray_actor_options": {"num_cpus": 0},
            **({"placement_group_bundle_label_selector": [model.labels]} if model.labels else {}),
        },
    )


def _runtime_env(model: ServedModel) -> dict[str, Any]:
    variables = {"VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if model.accelerator == "cpu":
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(model.kv_cache_gib)
    return {"env_vars": variables}


def _locate(model: ServedModel) -> ModelSource:
    from zephyr_ray.pipeline.model_source import external_source

    if model.path is not None:
        return external_source("path", model.path, model.revision)
    assert model.run is not None
    return checkpoint_of_run(model.run, model.stage)


def checkpoint_of_run(root: str, stage: str | None = None) -> ModelSource:
    """A run's checkpoint: of `stage`, or of the last stage that is finished.

    Raises:
        UserError: The run has no such finished stage, or is in a bucket that cannot be read.
    """
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.model_source import stage_source

    run = Run(root)
    run.check_readable()
    for name in (stage,) if stage else ("dpo", "sft"):
        artifact = run.artifact(name)
        if artifact.manifest() is not None:
            return stage_source(artifact)
    wanted = f"finished {stage} stage" if stage else "finished checkpoint"
    raise UserError(f"{root} has no {wanted}; run `zephyr-ray run RECIPE --set run.root={root}` to its end first")


def _lora(model: ServedModel) -> dict[str, Any]:
    """vLLM's options for the adapters, with ranks large enough for all of them."""
    if not model.adapters:
        return {}
    ranks = [_adapter_rank(name, folder) for name, folder in model.adapters.items()]
    modules = [
        {"name": name, "path": os.path.abspath(folder), "base_model_name": model.name}
        for name, folder in model.adapters.items()
    ]
    rank = min(size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= max(ranks))
    return {"enable_lora": True, "max_loras": len(modules), "max_lora_rank": rank, "lora_modules": modules}


def _adapter_rank(name: str, folder: str) -> int:
    import json

    field = f"adapter {name}={folder}"
    try:
        with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as stream:
            rank = int(json.load(stream)["r"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{field} holds no adapter_config.json of a LoRA adapter; give a PEFT adapter folder") from None
    if not os.path.exists(os.path.join(folder, "adapter_model.safetensors")):
        raise UserError(f"{field} holds no adapter_model.safetensors; save the adapter with save_pretrained")
    if not 1 <= rank <= 512:
        raise UserError(f"{field} has rank {rank}; the engine takes 1 to 512")
    return rank
