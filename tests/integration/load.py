"""Load on the endpoint: clients that ask again and again until told to stop, and what became of each request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.integration.service import Service


@dataclass
class Outcome:
    """What became of the requests: statuses and fingerprints of whole answers, ends of streams."""

    statuses: list[int] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    """done, error (an error event, then [DONE]) or silence, for each stream."""

    @property
    def failed(self) -> list[Any]:
        wrong = [body for status, body in zip(self.statuses, self.bodies, strict=True) if status != 200]
        return wrong + [end for end in self.ends if end == "silence"]


class Clients:
    """A session on the endpoint with the key."""

    def __init__(self, service: Service, session: aiohttp.ClientSession):
        self.url, self.session, self.outcome = f"{service.url}/v1/chat/completions", session, Outcome()

    async def ask(self, **options: Any) -> None:
        async with self.session.post(self.url, json=_body(**options)) as answer:
            body = await answer.json(content_type=None)
            self.outcome.statuses.append(answer.status)
            self.outcome.bodies.append({**body, "headers": dict(answer.headers)} if answer.status != 200 else {})
            if answer.status == 200:
                self.outcome.fingerprints.append(body["system_fingerprint"])

    async def stream(self, **options: Any) -> None:
        async with self.session.post(self.url, json=_body(stream=True, **options)) as answer:
            if answer.status != 200:
                self.outcome.statuses.append(answer.status)
                self.outcome.bodies.append(await answer.json(content_type=None))
                return
            end = "silence"
            try:
                async for line in answer.content:
                    if line.startswith(b'data: {"error"'):
                        end = "error"
                    elif line.startswith(b"data: [DONE]"):
                        end = "done" if end == "silence" else end
                    elif line.startswith(b"data: "):
                        json.loads(line[6:])
            except aiohttp.ClientError:
                end = "silence"
            self.outcome.ends.append(end)


@asynccontextmanager
async def clients(service: Service) -> AsyncIterator[Clients]:
    headers = {"authorization": f"Bearer {service.key}"}
    timeout = aiohttp.ClientTimeout(total=150)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        yield Clients(service, session)


@asynccontextmanager
async def keeping_busy(each: Callable[[], Awaitable[None]], number: int) -> AsyncIterator[None]:
    """So many clients call `each` over and over while the block runs; then their last requests are waited for."""
    going = True

    async def client() -> None:
        while going:
            await each()

    tasks = [asyncio.create_task(client()) for _ in range(number)]
    try:
        yield
    finally:
        going = False
        await asyncio.gather(*tasks)


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits for something of the cluster, asked for in a thread."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await asyncio.to_thread(condition):
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.3)


def _body(**options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Sort these words: pear, apple, fig"}]
    return {"model": "tiny", "messages": messages, "max_tokens": 8, "ignore_eos": True, **options}
