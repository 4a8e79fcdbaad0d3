"""An OpenAI-compatible server that answers at once and does harm to a seeded share of its requests.

It counts every reply that it gave whole: what a provider would send a bill for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from tests.integration.servers import free_port

STRANGE = ("usage_text", "surrogate", "null_choice", "null_length", "null_filter", "refusal")
"""Whole replies, which are billed, and of which a field is not as it should be."""


class FaultServer:
    """Runs in a thread of its own, on loopback."""

    def __init__(self, faults: Mapping[str, float] | None = None, *, latency_s: float = 0.0, hang_s: float = 3.0):
        """
        Args:
            faults: Share of requests for each of `429`, `500`, `hang`, `malformed`, `empty`, `reset`, `refuse`, and for
                each of `STRANGE`.
            latency_s: Of a whole reply.
            hang_s: How long a request hangs before its connection is dropped.
        """
        self.faults, self.latency_s, self.hang_s = dict(faults or {}), latency_s, hang_s
        self.refuse_all = False
        self.billed: Counter[str] = Counter()
        """Whole replies, by request (model, messages or prompt, seed)."""
        self.done: Counter[str] = Counter()
        """Requests by what became of them."""
        self._harmed: Counter[str] = Counter()
        self.most_open = self._open = 0
        self._random = random.Random(0)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> FaultServer:
        self._port = free_port()
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._chat)
        runner = web.AppRunner(app, handler_cancellation=True)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self._port).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        try:
            body = json.loads(await request.read())
            kind = "refuse" if self.refuse_all else self._draw(request_name(body))
            self.done[kind] += 1
            return await self._answer(request, body, kind)
        finally:
            self._open -= 1

    def _draw(self, name: str) -> str:
        """No request is harmed more than three times: each makes whoever repeats it wait twice as long."""
        if self._harmed[name] == 3:
            return "whole"
        point = self._random.random()
        for kind, share in self.faults.items():
            point -= share
            if point < 0:
                self._harmed[name] += 1
                return kind
        return "whole"

    async def _answer(self, request: web.Request, body: dict[str, Any], kind: str) -> web.StreamResponse:
        assert request.transport is not None
        match kind:
            case "429":
                return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})
            case "500":
                return web.json_response({"error": {"message": "broken"}}, status=500)
            case "refuse":
                return web.json_response({"error": {"message": "not this"}}, status=400)
            case "hang":
                await asyncio.sleep(self.hang_s)
                request.transport.abort()
                return web.Response()
            case "reset":
                request.transport.abort()
                return web.Response()
            case "malformed":
                return web.Response(text='{"id": "x", "choices": [{"mess', content_type="application/json")
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        reply = self._reply(body)
        if kind == "empty":
            reply |= {"choices": [], "usage": None}
        else:
            self.billed[request_name(body)] += 1
            _make_strange(reply, kind)
        return web.json_response(reply)

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        """A chat completion, or a completion of a text where the request has a `prompt`."""
        content = _ratings(body) if body.get("response_format") else f"answer {body.get('seed')}"
        said = {"text": content} if "prompt" in body else {"message": {"role": "assistant", "content": content}}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", **said}],
            "usage": {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60},
        }


def _make_strange(reply: dict[str, Any], kind: str) -> None:
    choice, usage = reply["choices"][0], reply["usage"]
    message = choice.get("message", {})
    match kind:
        case "usage_text":
            usage["completion_tokens"] = str(usage["completion_tokens"])
        case "surrogate":
            message["content"] = message["content"].replace("answer ", "answer\ud83d ").replace("as it", "as it\ud83d")
        case "null_choice":
            reply["choices"] = [None]
        case "null_length":
            message["content"], choice["finish_reason"] = None, "length"
        case "null_filter":
            message["content"], choice["finish_reason"] = None, "content_filter"
        case "refusal":
            message["content"], message["refusal"] = None, "I will not"


def request_name(body: Mapping[str, Any]) -> str:
    """What makes two requests the same."""
    return f"{body['model']} {body.get('seed')} {json.dumps(body.get('messages', body.get('prompt')))}"


def _ratings(body: dict[str, Any]) -> str:
    """A reply that follows the schema; the ratings are a hash of the request, so that they differ."""
    number = int(hashlib.blake2b(request_name(body).encode(), digest_size=8).hexdigest(), 16)
    return json.dumps(_filled(body["response_format"]["json_schema"]["schema"], number))


def _filled(schema: dict[str, Any], number: int) -> Any:
    """A value that follows a schema of objects, texts and enumerations."""
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    if schema["type"] == "string":
        return "as it is"
    return {
        name: _filled(each, number >> (4 * place)) for place, (name, each) in enumerate(schema["properties"].items())
    }
