"""What stands in for the models in tests of the gateway: a proxy without replicas."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from zephyr_ray.serving.gateway import app as gateways
from zephyr_ray.serving.gateway.app import Gateway
from zephyr_ray.serving.gateway.errors import ApiError
from zephyr_ray.serving.gateway.settings import GatewaySettings

QUESTION = [{"role": "user", "content": "Hi"}]


class StandInProxy:
    """Answers every request with one message, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def _take(self, model: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        self.asked.append({"model": model, "path": path, "body": json.loads(body), "headers": headers})
        if self.error is not None:
            raise self.error

    async def whole(self, model: str, path: str, body: bytes, headers: dict[str, str], deadline: float) -> Any:
        self._take(model, path, body, headers)
        message = {"role": "assistant", "content": "Yes"}
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}

    async def stream(
        self, model: str, path: str, body: bytes, headers: dict[str, str], deadline: float
    ) -> AsyncIterator[bytes]:
        self._take(model, path, body, headers)
        yield b'data: {"choices": [{"delta": {"content": "Yes"}}]}\n\n'
        yield b"data: [DONE]\n\n"

    async def describe(self, model: str) -> dict[str, Any]:
        return {"id": model, "fingerprint": f"of-{model}", "max_model_len": 64}

    async def lineage(self, model: str) -> dict[str, Any] | None:
        return {"system_fingerprint": f"of-{model}", "of": ["dpo"]}

    async def close(self) -> None:
        pass


def make_gateway(patch: pytest.MonkeyPatch, **settings: Any) -> tuple[Gateway, StandInProxy]:
    """A gateway over one model `tiny` with one adapter, open unless told otherwise, and its proxy."""
    proxy = StandInProxy()
    patch.setattr(gateways, "ReplicaProxy", lambda: proxy)
    patch.setattr(gateways, "_check_loopback", lambda: None, raising=False)

    async def describe(gateway: Gateway, app: str) -> None:
        gateway._described[app] = await proxy.describe(app)

    patch.setattr(Gateway, "_describe", describe)
    given = {"models": {"tiny": ["tiny-lora"]}, "open": "keys" not in settings, **settings}
    return Gateway(GatewaySettings(**given)), proxy


def refused(raised: pytest.ExceptionInfo[ApiError]) -> tuple[int, str | None]:
    return raised.value.status, raised.value.param
