"""ASGI middleware at a replica's own port: it asks for a key, serves few routes, and bounds the requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from zephyr_ray.serving import keys

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ROUTES = frozenset({"/v1/chat/completions", "/v1/completions", "/health"})
"""What a replica answers. vLLM's app has more (tokenizer, pooling, adapter loading); nobody asked for those."""


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
            return await self._hold(scope, receive, send)
        if scope["type"] == "websocket":  # vLLM has a route of these, and they carry no key
            return await send({"type": "websocket.close", "code": 1008})
        await self._app(scope, receive, send)

    async def _hold(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._inside >= self._most:
            return await _refuse(send, 429, "the model's queue is full; try again")
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
