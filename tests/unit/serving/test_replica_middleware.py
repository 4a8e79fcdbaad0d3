"""What a replica lets in: its routes, with a key, as many requests as it holds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from zephyr_ray.serving.keys import Keys, hash_key
from zephyr_ray.serving.replica_middleware import ROUTES, Guard

KEYS = Keys({hash_key("k" * 16): "alice"})
GOOD = (b"authorization", b"Bearer " + b"k" * 16)


def ask(known: Keys | None, scope: dict[str, Any]) -> list[Any]:
    """What is sent back; `passed` where the application behind was reached."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append("passed")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(app, known, 1)(scope, None, send))  # type: ignore[arg-type]
    return sent


def http(path: str, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http", "path": path, "headers": list(headers)}


@pytest.mark.parametrize("path", sorted(ROUTES))
def test_a_route_is_open_with_a_key_alone(path: str) -> None:
    assert ask(KEYS, http(path, GOOD)) == ["passed"]
    assert ask(None, http(path)) == ["passed"]
    for headers in ([], [(b"authorization", b"Bearer x")], [(b"authorization", b"\xff")]):
        start, body = ask(KEYS, http(path, *headers))
        assert start["status"] == 401
        assert json.loads(body["body"])["error"]["message"]


@pytest.mark.parametrize("path", ["/tokenize", "/v1/load_lora_adapter", "/v1/models", "/v1/chat/completions/", ""])
def test_other_routes_are_not_there(path: str) -> None:
    assert ask(KEYS, http(path, GOOD))[0]["status"] == 404
    assert ask(None, http(path))[0]["status"] == 404


def test_a_websocket_is_closed_and_the_lifespan_passes() -> None:
    socket = {"type": "websocket", "path": "/v1/realtime", "headers": [GOOD]}
    assert ask(None, socket) == ask(KEYS, socket) == [{"type": "websocket.close", "code": 1008}]
    assert ask(KEYS, {"type": "lifespan"}) == ["passed"]


def test_a_full_replica_answers_429_and_takes_the_next_when_one_is_done() -> None:
    statuses: list[int] = []
    leave = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await leave.wait()

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])
            assert (b"retry-after", b"1") in message["headers"]

    async def three() -> None:
        guard = Guard(app, None, 2)
        scope = http("/v1/chat/completions")
        inside = [asyncio.create_task(guard(scope, None, send)) for _ in range(2)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await guard(scope, None, send)  # type: ignore[arg-type]
        assert statuses == [429]
        leave.set()
        await asyncio.gather(*inside)
        await guard(scope, None, send)  # type: ignore[arg-type]
        assert statuses == [429]

    asyncio.run(three())
