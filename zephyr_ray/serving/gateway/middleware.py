"""ASGI middleware before the whole gateway: security headers, a bound on request bodies, and no foreign host names."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from zephyr_ray.serving.gateway.errors import error_body

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class RequestGuard:
    """The outermost layer of the gateway.

    Args:
        app: What is behind it.
        body_bytes: A body is never read further than this.
        loopback_only: Answer requests for a loopback host alone. An endpoint without keys needs that: a page of another
            site whose name is pointed at 127.0.0.1 would otherwise read it with the visitor's browser.
    """

    def __init__(self, app: ASGIApp, body_bytes: int, *, loopback_only: bool):
        self._app, self._limit, self._loopback_only = app, body_bytes, loopback_only
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_secured(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        headers = dict(scope["headers"])
        if self._loopback_only and not _is_loopback(headers.get(b"host", b"")):
            return await _refuse(send_secured, 400, "this endpoint answers on loopback only: give keys to open it")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and (len(length) > 18 or int(length) > self._limit):
            return await self._too_large(send_secured)
        try:
            await self._app(scope, _bounded(receive, self._limit), send_secured)
        except _TooLarge:
            await self._too_large(send_secured)

    async def _too_large(self, send: Send) -> None:
        await _refuse(send, 413, f"the body is over {self._limit} bytes")


def _is_loopback(host: bytes) -> bool:
    name = host.decode("latin-1").lower()
    return any(name == known or name.startswith(f"{known}:") for known in _LOOPBACK)


async def _refuse(send: Send, status: int, message: str) -> None:
    """Answers without having read the body, so the connection cannot be used again."""
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": error_body(status, message)})


class _TooLarge(BaseException):
    """Passes through the application's own handlers of exceptions."""


def _bounded(receive: Receive, limit: int) -> Callable[[], Awaitable[Any]]:
    """`receive` that gives up once a body without a length has become too long."""
    seen = 0

    async def receive_bounded() -> Any:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _TooLarge
        return message

    return receive_bounded
