"""Middleware at a replica's port: allowed routes, API key, and a limit on concurrent requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from zephyr_ray.serving import keys

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ROUTES = frozenset({"/v1/chat/completions", "/v1/completions", "/health"})
"""The routes that a replica serves. vLLM's app has more (tokenizer, pooling, adapter loading)."""


class Guard:
    """Admits requests with a valid key to the replica's routes, up to a number of concurrent requests."""

    def __init__(self, app: ASGIApp, known: keys.Keys | None, max_requests: int):
        self._app, self._keys = app, known
        self._inside, self._most = 0, max_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"] not in ROUTES:
                return await _send_error(send, 404, f"there is no {scope['path']}")
            authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            if self._keys is not None and self._keys.name_of(authorization) is None:
                return await _send_error(send, 401, "no valid API key")
            return await self._pass_if_free(scope, receive, send)
        if scope["type"] == "websocket":  # vLLM has such a route, which checks no key
            return await send({"type": "websocket.close", "code": 1008})
        await self._app(scope, receive, send)

    async def _pass_if_free(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._inside >= self._most:
            return await _send_error(send, 429, "the model's queue is full; try again")
        self._inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside -= 1


async def _send_error(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
