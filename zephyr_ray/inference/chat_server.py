"""Reads requests over HTTP -> answers of one model: Ray Serve LLM's server with our prompts, on vLLM's own routes.

A deployment of this class is the ingress of an application of its own, without a route: only the gateway calls it,
straight at the replica's port (Ray Serve's direct ingress), so a token crosses one HTTP hop and no object store.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ray.serve.llm import LLMServer

from zephyr_ray.inference import keys

if TYPE_CHECKING:
    from ray.serve.llm import LLMConfig
    from starlette.types import ASGIApp, Receive, Scope, Send

ROUTES = frozenset({"/v1/chat/completions", "/v1/completions", "/health"})
"""What a replica answers. vLLM's app has more (tokenizer, pooling, adapter loading); nobody asked for those."""


class ChatServer(LLMServer):
    """One replica: vLLM's engine and its OpenAI routes, with `TrainingRenderer` and the API keys checked here too."""

    # Ray Serve awaits the constructor.
    async def __init__(  # type: ignore[misc]
        self, llm_config: LLMConfig, max_requests: int, keys_file: str | None = None, open_to_all: bool = False
    ):
        from vllm.entrypoints.openai.models.protocol import LoRAModulePath
        from vllm.renderers.registry import RENDERER_REGISTRY

        self._max_requests = max_requests
        self._keys = None if open_to_all else keys.read(keys_file)
        RENDERER_REGISTRY.renderers["hf"] = ("zephyr_ray.inference.renderer", "TrainingRenderer")
        options = llm_config.engine_kwargs
        if options.get("lora_modules"):
            options["lora_modules"] = [LoRAModulePath(**module) for module in options["lora_modules"]]
        await super().__init__(llm_config)

    async def describe(self) -> dict[str, Any]:
        """What the gateway tells clients of this model."""
        config = await self.llm_config()
        assert config is not None
        engine: Any = self.engine
        return {
            "id": config.model_id,
            "fingerprint": config.engine_kwargs["fingerprint_value"],
            "adapters": [module.name for module in config.engine_kwargs.get("lora_modules") or ()],
            "max_model_len": engine._engine_client.model_config.max_model_len,
        }

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        return Guard(await self.engine.build_asgi_app(), self._keys, self._max_requests)  # type: ignore[union-attr]


class Guard:
    """Lets requests with a key through to the few routes that a replica has, and not more than it can hold."""

    def __init__(self, app: ASGIApp, known: keys.Keys | None, max_requests: int):
        self._app, self._keys = app, known
        self._inside, self._most = 0, max_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"] not in ROUTES:
                return await _refuse(send, 404, f"there is no {scope['path']}")
            authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            if self._keys is not None and self._keys.name_of(authorization) is None:
                return await _refuse(send, 401, "no valid API key")
            if self._inside >= self._most:
                return await _refuse(send, 429, "the model's queue is full; try again")
        elif scope["type"] == "lifespan":  # lasts as long as the replica
            return await self._app(scope, receive, send)
        self._inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside -= 1


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
