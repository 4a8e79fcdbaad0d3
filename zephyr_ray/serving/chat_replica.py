"""Replica of a chat model: Ray Serve LLM's server with training's prompts, on vLLM's own HTTP routes.

A deployment of this class is the ingress of its own application, without a route. Only the gateway calls it, directly
at the replica's port (Ray Serve's direct ingress), so a token crosses one HTTP hop and no object store.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ray.serve.llm import LLMServer

from zephyr_ray.serving import keys
from zephyr_ray.serving.engine import Engine
from zephyr_ray.serving.engine_watch import watch
from zephyr_ray.serving.lineage import lineage_in
from zephyr_ray.serving.open_length import set_open_lengths
from zephyr_ray.serving.replica_middleware import Guard
from zephyr_ray.serving.weights import fetch_weights

if TYPE_CHECKING:
    from ray.serve.llm import LLMConfig
    from starlette.types import ASGIApp


class ChatReplica(LLMServer):
    """One replica: vLLM's engine and OpenAI routes, with `TrainingRenderer` and a check of the API keys."""

    # Ray Serve awaits the constructor.
    async def __init__(  # type: ignore[misc]
        self, llm_config: LLMConfig, max_requests: int, keys_file: str | None = None, open_to_all: bool = False
    ):
        from vllm.entrypoints.openai.models.protocol import LoRAModulePath
        from vllm.renderers.registry import RENDERER_REGISTRY

        self._max_requests = max_requests
        self._keys = None if open_to_all else keys.read(keys_file)
        RENDERER_REGISTRY.renderers["hf"] = ("zephyr_ray.serving.renderer", "TrainingRenderer")
        options = llm_config.engine_kwargs
        if options.get("lora_modules"):
            options["lora_modules"] = [LoRAModulePath(**module) for module in options["lora_modules"]]
        self._folder = await fetch_weights(llm_config)
        await super().__init__(llm_config, engine_cls=Engine)
        engine: Any = self.engine
        set_open_lengths(engine._engine_client)
        self._watch = watch(self)

    async def describe(self) -> dict[str, Any]:
        """The model's description, which the gateway shows to clients."""
        config = await self.llm_config()
        assert config is not None
        engine: Any = self.engine
        return {
            "id": config.model_id,
            "fingerprint": config.engine_kwargs["fingerprint_value"],
            "adapters": [module.name for module in config.engine_kwargs.get("lora_modules") or ()],
            "max_model_len": engine._engine_client.model_config.max_model_len,
        }

    async def lineage(self) -> dict[str, Any] | None:
        """What made the model, as far as its folder says; None if it does not."""
        config = await self.llm_config()
        assert config is not None
        return await asyncio.to_thread(lineage_in, self._folder, config.engine_kwargs["fingerprint_value"])

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        return Guard(await self.engine.build_asgi_app(), self._keys, self._max_requests)  # type: ignore[union-attr]
