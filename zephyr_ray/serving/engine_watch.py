"""End a replica when its engine dies.

The replica of a dead engine answers every request at once with an error. As the least busy replica it would attract
most requests and retries until Ray Serve's health checks have failed often enough.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any, Protocol

_LOOK_S = 0.1


class Engine(Protocol):
    """The part of vLLM's `AsyncLLM` that is watched."""

    @property
    def errored(self) -> bool: ...


def watch(server: Any) -> asyncio.Task[None]:
    """Ends this process with the engine of a Ray Serve LLM server; the caller must keep the returned task."""
    return asyncio.create_task(end_with(server.engine._engine_client))


async def end_with(engine: Engine) -> None:
    """Waits until the engine dies and then ends this process; Ray Serve starts another replica."""
    while not engine.errored:
        await asyncio.sleep(_LOOK_S)
    logging.getLogger(__name__).error("the engine died, and this replica ends with it")
    os._exit(1)
