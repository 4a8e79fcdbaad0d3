"""An OpenAI-compatible server for benchmarks/feedback.py: answers at once, or after a fixed time."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


async def serve(port: int, latency_s: float) -> None:
    """Answers chat requests after a fixed time. GET says when the first and the last came, since the last GET."""
    from aiohttp import web

    seen: dict[str, Any] = {}

    def reset() -> None:
        seen.update(requests=0, first=None, last=None, open=0, most_open=0)

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.method == "GET":
            told = dict(seen)
            reset()
            return web.json_response(told)
        seen["first"] = seen["first"] or time.time()
        seen["requests"] += 1
        seen["open"] += 1
        seen["most_open"] = max(seen["most_open"], seen["open"])
        body = json.loads(await request.read())
        if latency_s:
            await asyncio.sleep(latency_s)
        seen["open"] -= 1
        seen["last"] = time.time()
        return web.Response(body=reply_to(body), content_type="application/json")

    reset()
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def reply_to(body: dict[str, Any]) -> bytes:
    """A whole reply: ratings that follow the schema where there is one, drawn by the seed."""
    seed = body.get("seed") or 0
    content = f"answer {seed} " + "of some length " * 20
    if body.get("response_format"):
        ratings = {}
        for place, (key, verdict) in enumerate(body["response_format"]["json_schema"]["schema"]["properties"].items()):
            scale = verdict["properties"]["rating"]["enum"]
            reason = next(name for name in verdict["properties"] if name != "rating")
            ratings[key] = {reason: "as it is", "rating": scale[(seed >> (8 * place)) % len(scale)]}
        content = json.dumps(ratings)
    reply = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60},
    }
    return json.dumps(reply).encode()


@contextmanager
def server(work: Path, latency_s: float) -> Iterator[int]:
    """The port of a running server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, os.path.abspath(__file__), "--port", str(port)]
    with (work / "server.log").open("w") as log:
        process = subprocess.Popen([*command, "--latency", str(latency_s)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while ask_server(port) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not come up:\n{(work / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield port
    finally:
        process.kill()
        process.wait(30)


def ask_server(port: int) -> dict[str, Any] | None:
    """What the server saw since it was last asked; None while it is not up."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as reply:
            return json.loads(reply.read())
    except (urllib.error.URLError, ConnectionError):
        return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, required=True, help="seconds")
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.latency))
