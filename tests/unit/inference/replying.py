"""Replies of a server, sane and strange, and a pool's member that gets them without a network."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from zephyr_ray.inference.clients import read_body
from zephyr_ray.inference.response_cache import Ledger
from zephyr_ray.inference.server_reply import Reply
from zephyr_ray.pipeline.artifacts import Run

SANE = {
    "id": "x",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60},
}


def reply(message: Any = None, finish_reason: Any = "stop", **fields: Any) -> dict[str, Any]:
    """The sane reply with another message, finish_reason, or fields (`usage`, `choices`)."""
    changed: dict[str, Any] = copy.deepcopy(SANE)
    changed["choices"][0]["finish_reason"] = finish_reason
    if message is not None:
        changed["choices"][0]["message"] = message
    return changed | fields


def usage(completion: Any, prompt: Any = 50) -> dict[str, Any]:
    """The sane reply with these counts."""
    return reply(usage={"completion_tokens": completion, "prompt_tokens": prompt})


class Server:
    """Gives the same reply to every request, through JSON."""

    def __init__(self, body: Any):
        self.body, self.sent = body, 0

    async def send(self, body: Mapping[str, Any]) -> Reply:
        self.sent += 1
        return read_body(json.dumps(self.body).encode())


def ledger(root: str, budget_usd: float | None = None) -> Ledger:
    """The ledger of a stage in this folder, with what was written there before."""
    artifact = Run(root).artifact("candidates")
    artifact.begin("fingerprint")
    return Ledger(artifact, budget_usd)


class Handle:
    """A ledger in this process, called as Ray's handle of its actor is."""

    def __init__(self, own: Ledger):
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._own, name))


def totals(own: Ledger) -> dict[str, float]:
    return asyncio.run(own.totals())
