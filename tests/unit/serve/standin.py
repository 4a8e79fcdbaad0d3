"""What stands in for the models in tests of the gateway: a relay without replicas."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve import gateway as gateways
from serve.errors import ApiError
from serve.gateway import Gateway
from serve.settings import GatewaySettings

QUESTION = [{"role": "user", "content": "Hi"}]


class StandInRelay:
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

    async def close(self) -> None:
        pass


def make_gateway(patch: pytest.MonkeyPatch, **settings: Any) -> tuple[Gateway, StandInRelay]:
    """A gateway over one model `tiny` with one adapter, open unless told otherwise, and its relay."""
    relay = StandInRelay()
    patch.setattr(gateways, "Relay", lambda: relay)
    patch.setattr(gateways, "_check_loopback", lambda: None, raising=False)

    async def describe(gateway: Gateway, app: str) -> None:
        gateway._described[app] = await relay.describe(app)

    patch.setattr(Gateway, "_describe", describe)
    given = {"models": {"tiny": ["tiny-lora"]}, "open": "keys" not in settings, **settings}
    return Gateway(GatewaySettings(**given)), relay


def refused(raised: pytest.ExceptionInfo[ApiError]) -> tuple[int, str | None]:
    return raised.value.status, raised.value.param
