"""Replica of a stage's model on vLLM, called from within the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.serve.llm import LLMServer

from zephyr_ray.serving.engine import Engine
from zephyr_ray.serving.engine_watch import watch
from zephyr_ray.serving.weights import fetch_weights

if TYPE_CHECKING:
    from ray.serve.llm import LLMConfig


class StageReplica(LLMServer):
    """One replica of a model that a stage samples from or that judges for it. It has no port and no keys: only
    processes of this cluster reach it, by its handle."""

    # Ray Serve awaits the constructor.
    async def __init__(self, llm_config: LLMConfig):  # type: ignore[misc]
        from vllm.renderers.registry import RENDERER_REGISTRY

        RENDERER_REGISTRY.renderers["hf"] = ("zephyr_ray.serving.renderer", "TrainingRenderer")
        await fetch_weights(llm_config)
        await super().__init__(llm_config, engine_cls=Engine)
        self._watch = watch(self)

    async def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Returns an HTTP status, and the fields of a `server_reply.Reply` or a line that says what is wrong.

        Args:
            body: The body of OpenAI's chat completions, or with a `prompt` of its completions, without the model; not
                streamed, one choice.
        """
        from pydantic import ValidationError
        from ray.llm._internal.serve.core.configs.openai_api_models import (
            ChatCompletionRequest,
            CompletionRequest,
            ErrorResponse,
        )

        config = await self.llm_config()
        assert config is not None
        is_text = "prompt" in body
        try:
            request: Any = (CompletionRequest if is_text else ChatCompletionRequest)(model=config.model_id, **body)
        except ValidationError as error:
            return 400, " ".join(str(error).split())
        replies = [reply async for reply in await (self.completions if is_text else self.chat)(request)]
        reply: Any = replies[0]
        if isinstance(reply, ErrorResponse):
            return reply.error.code, reply.error.message
        choice = reply.choices[0]
        return 200, {
            "content": (choice.text if is_text else choice.message.content) or "",
            "finish_reason": choice.finish_reason,
            "tokens": reply.usage.completion_tokens,
            "prompt_tokens": reply.usage.prompt_tokens,
        }
