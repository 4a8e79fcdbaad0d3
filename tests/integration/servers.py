"""A real vLLM server, and a proxy before it that counts what is open and does harm on request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from aiohttp import ClientSession, web

from zephyr_ray.cluster.ports import free_port

Fault = Callable[[dict, int], str | None]
"""A request's body and how often it came before -> `429`, `500`, `reset`, `stall` or None."""


@contextlib.contextmanager
def vllm_server(model: Path, log: Path, *names: str) -> Iterator[str]:
    """A vLLM server that knows its model by several names; yields its base URL."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--enforce-eager"]
    command += [
        "--max-model-len",
        "4096",
        "--dtype",
        "float32",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--served-model-name",
        *names,
    ]
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    # With chunked prefill, a CPU engine dies of a seeded prompt that it has to cut.
    command += ["--no-enable-chunked-prefill"]
    # A random model that has to write JSON would go on with line feeds.
    command += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    with log.open("w") as stream:
        server = subprocess.Popen(command, env=env, stdout=stream, stderr=subprocess.STDOUT)
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def _wait(server: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + 180
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.3)
    raise RuntimeError(f"the vLLM server did not come up:\n{log.read_text()[-2000:]}")


class Proxy:
    """Passes requests on to a server from a thread of its own."""

    def __init__(self, upstream: str):
        self.upstream = upstream
        self.fault: Fault = lambda body, before: None
        self.reset()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def reset(self) -> None:
        self.open: Counter[str] = Counter()
        self.most_open: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.bodies: list[dict] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Proxy:
        self._port = free_port()
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._session.close())
        self._loop.run_until_complete(self._runner.cleanup())

    async def _start(self) -> None:
        self._session = ClientSession()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, handler_cancellation=True)  # a client that hangs up is no longer served
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        model = body["model"]
        self.open[model] += 1
        self.most_open[model] = max(self.most_open[model], self.open[model])
        try:
            return await self._answer(request, body)
        finally:
            self.open[model] -= 1

    async def _answer(self, request: web.Request, body: dict) -> web.StreamResponse:
        key = f"{body['model']} {body['seed']}"
        times = self.times.setdefault(key, [])
        fault = self.fault(body, len(times))
        times.append(time.monotonic())
        self.bodies.append(body)
        if fault == "429":
            return web.json_response({"error": "busy"}, status=429, headers={"Retry-After": "1"})
        if fault == "500":
            return web.json_response({"error": "broken"}, status=500)
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "stall":
            await asyncio.sleep(3)
        elif fault is not None:  # a reply to give as it stands
            return web.Response(text=fault, content_type="application/json")
        async with self._session.post(f"{self.upstream}/chat/completions", json=body) as reply:
            return web.Response(body=await reply.read(), status=reply.status, content_type=reply.content_type)
