"""AIMD limit on concurrent requests to one endpoint or deployment."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType


class AdaptiveLimit:
    """A limit on open requests that adapts to the server: additive increase, multiplicative decrease.

    Use it as an async context manager around a request, on one event loop.
    """

    def __init__(self, most: int):
        self._most = most
        self._limit = float(most)
        self._open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_cut = float("-inf")

    @property
    def limit(self) -> int:
        """Number of requests that may be open now."""
        return int(self._limit)

    async def __aenter__(self) -> None:
        if self._open < self.limit and not self._waiting:
            self._open += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn  # whoever resolves it has already counted this request as open
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def slow_down(self, asked_at: float) -> None:
        """Halves the limit, because the server was too busy for a request sent at `asked_at` (the loop's time).

        Requests sent before the last cut are ignored: they say nothing about the limit after it.
        """
        if asked_at >= self._last_cut:
            self._last_cut = asyncio.get_running_loop().time()
            self._limit = max(1.0, self._limit / 2)

    def speed_up(self) -> None:
        """Raises the limit after a reply: by one for as many replies as the limit allows open requests."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)
        self._wake()

    def _leave(self) -> None:
        self._open -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._open < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():  # done: the request was cancelled while it waited
                self._open += 1
                turn.set_result(None)
