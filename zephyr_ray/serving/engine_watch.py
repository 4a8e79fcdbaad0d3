"""Ends a replica whose engine has died, so that Ray Serve starts another.

The replica of a dead engine answers every request at once, with an error. As the least busy one it would draw most of
them, retries too, until Ray Serve's health checks have failed often enough. A replica that is gone draws none.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any, Protocol

_LOOK_S = 0.1


class Engine(Protocol):
    """What vLLM's `AsyncLLM` says of itself."""

    @property
    def errored(self) -> bool: ...


def watch(server: Any) -> asyncio.Task[None]:
    """Has this process end with the engine of a Ray Serve LLM server; keep what it returns."""
    return asyncio.create_task(end_with(server.engine._engine_client))


async def end_with(engine: Engine) -> None:
    """Waits for the engine's death, and ends this process; Ray Serve starts another replica."""
    while not engine.errored:
        await asyncio.sleep(_LOOK_S)
    logging.getLogger(__name__).error("the engine died, and this replica ends with it")
    os._exit(1)
