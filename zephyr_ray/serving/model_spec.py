"""Specification of a served model (from a run, a folder or a hub id), and its Ray Serve LLM configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from zephyr_ray.config.serving import ServedOnVllm
from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from ray.serve.llm import LLMConfig

    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.model_source import ModelSource

_CPU_OPTIONS = {
    "enforce_eager": True,
    # vLLM 0.29 on a CPU loses its engine over a seeded request whose prompt is prefilled in chunks.
    "enable_chunked_prefill": False,
}


class ServedModel(ServedOnVllm):
    """One model behind the endpoint: where it comes from and how much of the cluster it may use."""

    run: str | None = None
    """Root of a run; its checkpoint of `stage` is served, or its last finished one (dpo of the last round, otherwise
    sft)."""
    stage: str | None = None
    """The stage that made the run's checkpoint (base, sft, dpo, round_2/dpo ...)."""
    path: str | None = None
    """A Hugging Face folder, its URI or a hub id, instead of a run."""
    adapters: dict[str, str] = Field(default_factory=dict)
    """LoRA adapters (folders with safetensors) by name; clients request them like models."""
    min_replicas: int = Field(1, ge=0)
    """Replicas that always run. 0: none after downscale_delay_s without a request; the next request waits for an
    engine to start. Even then a new deployment starts with one replica, to show that it can start."""
    target_ongoing_requests: float = Field(16, gt=0)
    """Requests in progress per replica that autoscaling aims for."""
    upscale_delay_s: float = Field(10, ge=0)
    """How long the load must be above the target before replicas are added."""
    downscale_delay_s: float = Field(600, ge=0)
    """How long the load must be below the target before replicas are removed."""
    max_requests: int = Field(256, ge=1)
    """Requests that a replica holds, running or waiting in its engine (which runs engine.max_num_seqs of them); further
    ones get status 429."""
    drain_s: float = Field(120, ge=0)
    """How long a replaced or removed replica may continue its requests."""

    @model_validator(mode="after")
    def _check_consistency(self) -> ServedModel:
        if (self.run is None) == (self.path is None):
            raise ValueError(f"model {self.name}: give either run or path")
        if self.stage is not None and self.run is None:
            raise ValueError(f"model {self.name}: stage goes with run")
        if self.name in self.adapters:
            raise ValueError(f"model {self.name}: an adapter has the model's own name")
        return self

    @property
    def names(self) -> list[str]:
        """All model names that this model's replicas serve."""
        return [self.name, *self.adapters]


def llm_config(model: ServedModel) -> LLMConfig:
    """The configuration of one model's deployment in Ray Serve LLM, with its weights' fingerprint.

    Raises:
        UserError: There is no such model or adapter, or it cannot be served.
    """
    from ray.serve.config import AutoscalingConfig
    from ray.serve.llm import LLMConfig

    from zephyr_ray.serving.chat_replica import ChatReplica

    source = _model_source(model)
    engine = {
        "load_format": "safetensors",
        "dtype": model.dtype,
        "fingerprint_mode": "custom",
        "fingerprint_value": source.fingerprint,
        **({} if model.max_model_len is None else {"max_model_len": model.max_model_len}),
        **({} if source.revision is None else {"revision": source.revision}),
        **_adapter_options(model),
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
        # With Ray's default of 10, a short delay would end before a new replica's first requests are counted.
        metrics_interval_s=2,
    )
    return LLMConfig(
        model_loading_config={"model_id": model.name, "model_source": source.path},
        accelerator_config={"kind": model.accelerator},
        engine_kwargs=engine,
        server_cls=ChatReplica,
        runtime_env=_runtime_env(model),
        experimental_configs={"stream_batching_interval_ms": 0},
        deployment_config={
            "autoscaling_config": autoscaling.model_dump(exclude_unset=True),
            # The replica's own middleware enforces max_requests, with a status that clients understand.
            "max_ongoing_requests": 10_000,
            "graceful_shutdown_timeout_s": model.drain_s,
            # A new checkpoint's replica is up before the old one stops.
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


def _model_source(model: ServedModel) -> ModelSource:
    from zephyr_ray.pipeline.model_source import external_source

    if model.path is not None:
        return external_source("path", model.path, model.revision)
    assert model.run is not None
    return checkpoint_of_run(model.run, model.stage)


def checkpoint_of_run(root: str, stage: str | None = None) -> ModelSource:
    """A run's checkpoint: that of `stage`, or the newest one. Raises as `trained_stage`."""
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.model_source import stage_source

    return stage_source(Run(root).artifact(trained_stage(root, stage)))


def trained_stage(root: str, stage: str | None = None) -> str:
    """The name of `stage`, or of the finished stage of a run that trained last: of its last round, if it has several.

    Raises:
        UserError: The run has no such finished stage, or several that are equally late, or its bucket cannot be read.
    """
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.rounds import in_folder
    from zephyr_ray.training.methods import methods

    run = Run(root)
    run.check_readable()
    if stage and (method := methods().get(in_folder(stage)[1])) and method.makes_reward_model:
        raise UserError(f"stage {stage} of {root} is a reward model, which answers nobody; name another stage")
    for names in [[stage]] if stage else _trained_last_first(run):
        finished = [name for name in names if run.artifact(name).manifest() is not None]
        if len(finished) > 1:
            raise UserError(f"{root} has {len(finished)} trained models; say which with stage: {', '.join(finished)}")
        if finished:
            return finished[0]
    wanted = f"finished {stage} stage" if stage else "finished checkpoint"
    raise UserError(f"{root} has no {wanted}; run `zephyr-ray run RECIPE --set run.root={root}` to its end first")


def _trained_last_first(run: Run) -> list[list[str]]:
    """The stages that train a model: methods on what people or judges prefer, of later rounds first; then those on
    dialogues."""
    from zephyr_ray.pipeline.rounds import rounds_of
    from zephyr_ray.pipeline.stage import folder_of
    from zephyr_ray.training.methods import methods

    answering = [method for method in methods().values() if not method.makes_reward_model]
    aligned = [each.name for each in answering if each.rows != "dialogues"]
    on_dialogues = [each.name for each in answering if each.rows == "dialogues"]
    return [*([folder_of(number, name) for name in aligned] for number in rounds_of(run)), on_dialogues]


def _adapter_options(model: ServedModel) -> dict[str, Any]:
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
