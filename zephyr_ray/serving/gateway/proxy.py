"""Passes a checked request on to a replica and its answer back, whole or as a stream, through the death of any replica.

A request goes straight to a replica's port. Until the first byte has gone to the client, a replica that dies or breaks
off costs nothing: another one gets the same request (it has no effect but its answer). After that, a stream ends with
an error event instead of silence.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import aiohttp
import ray
from ray import serve
from ray._common.network_utils import get_localhost_ip
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from zephyr_ray.serving.gateway.errors import ApiError, error_event

logger = logging.getLogger("ray.serve")

_CONNECT_S = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_SERVER_ERRORS = 2  # tries again after a replica's own 5xx; a replica that is gone is tried around until the deadline
_DRAWS = 8
_DRAW_S = 0.2  # with a replica there, a draw takes no time
_GONE_S = 5.0
_ERROR_EVENT = b'data: {"error"'
_GONE = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)


class ReplicaProxy:
    """Sends requests to the replicas of the model applications of this cluster."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._handles: dict[str, DeploymentHandle] = {}
        self._ongoing: Counter[str] = Counter()
        self._gone: dict[str, float] = {}
        self._node = ray.get_runtime_context().get_node_id()

    async def whole(self, model: str, path: str, body: bytes, headers: dict[str, str], deadline: float) -> Any:
        """The JSON answer of a request that does not stream.

        Raises:
            ApiError: What the replica refused, or why there is no answer by the deadline (`time.monotonic`).
        """
        async with aclosing(self._attempts(model, deadline)) as attempts:
            async for attempt in attempts:
                try:
                    async with self._post(attempt, path, body, headers, deadline) as response:
                        answer = await response.read()
                except _GONE as error:
                    self._lost(attempt.address, model, error)
                    continue
                except TimeoutError:
                    raise _late() from None
                if response.status == 200:
                    return json.loads(answer)
                if response.status < 500 or not attempt.may_try_again():
                    raise _refused(response.status, answer, response.headers)
        raise _late()

    async def stream(
        self, model: str, path: str, body: bytes, headers: dict[str, str], deadline: float
    ) -> AsyncGenerator[bytes, None]:
        """The server-sent events of a request that streams, complete events only, whatever becomes of the replica.

        Raises:
            ApiError: As `whole`, before the first event.
        """
        async with aclosing(self._attempts(model, deadline)) as attempts:
            async for attempt in attempts:
                started, rest = False, b""
                try:
                    async with self._post(attempt, path, body, headers, deadline) as response:
                        if response.status != 200:
                            answer = await response.read()
                            if response.status < 500 or not attempt.may_try_again():
                                raise _refused(response.status, answer, response.headers)
                            continue
                        async for chunk in response.content.iter_any():
                            rest += chunk
                            end = rest.rfind(b"\n\n") + 2
                            if end > 1:
                                if not started and rest.startswith(_ERROR_EVENT):
                                    raise _refused_late(rest)
                                started = True
                                yield rest[:end]
                                rest = rest[end:]
                    if started and not rest:
                        return
                    raise ConnectionError("the stream ended without an event, or amid one")
                except _GONE as error:
                    self._lost(attempt.address, model, error)
                    if started:
                        yield error_event("the model's replica was lost; send the request again", "replica_lost")
                        return
                except TimeoutError:
                    if not started:
                        raise _late() from None
                    yield error_event("the request took longer than it may", "timeout")
                    return
        raise _late()

    async def describe(self, model: str) -> dict[str, Any]:
        """What a running replica says of its model."""
        return await self._handle(model).describe.remote()

    async def lineage(self, model: str) -> dict[str, Any] | None:
        """What a running replica knows of what made its model (`ChatReplica.lineage`)."""
        return await self._handle(model).lineage.remote()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _handle(self, model: str) -> DeploymentHandle:
        if model not in self._handles:
            try:
                self._handles[model] = serve.get_app_handle(model)
            except RayServeException:
                raise ApiError(503, f"model {model} is not deployed yet", headers={"retry-after": "5"}) from None
        return self._handles[model]

    async def _attempts(self, model: str, deadline: float) -> "AsyncGenerator[_Attempt, None]":
        """One replica after another, with growing pauses, until the deadline."""
        handle, pause, tries = self._handle(model), _FIRST_PAUSE_S, _Tries(_SERVER_ERRORS)
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    replica = await self._choose(handle)
            except TimeoutError:
                return
            except BackPressureError:
                raise ApiError(429, "too many requests are waiting", headers={"retry-after": "1"}) from None
            except DeploymentUnavailableError:
                raise ApiError(503, f"model {model} is not available", headers={"retry-after": "5"}) from None
            self._ongoing[replica] += 1
            try:
                yield _Attempt(replica, tries)
            finally:
                self._ongoing[replica] -= 1
                if not self._ongoing[replica]:
                    del self._ongoing[replica]  # addresses of replicas that are gone do not pile up
            await asyncio.sleep(min(pause, max(0, deadline - time.monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _choose(self, handle: DeploymentHandle) -> str:
        """Of two replicas that Ray Serve draws, the one with fewer requests of this gateway.

        One that was gone a moment ago is taken only where some more draws give no other: Ray Serve needs a while to
        see that a replica died, and it would have the fewest requests of all.
        """
        drawn: set[str] = set()
        for draw in range(_DRAWS):
            drawn.add(self._address(await _draw(handle)))
            if draw > 0 and not all(map(self._was_gone, drawn)):
                break
        return min(drawn, key=lambda address: (self._was_gone(address), self._ongoing[address]))

    def _was_gone(self, address: str) -> bool:
        return time.monotonic() - self._gone.get(address, -_GONE_S) < _GONE_S

    def _lost(self, address: str, model: str, error: BaseException) -> None:
        self._gone[address] = time.monotonic()
        logger.warning("replica %s of %s is gone (%s)", address, model, type(error).__name__)

    def _address(self, replica: Any) -> str:
        """Where a replica listens: on loopback for this node, since that may be all it listens on."""
        host, port = replica.backend_http_endpoint
        if replica.node_id == self._node:
            host = get_localhost_ip()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _post(self, attempt: "_Attempt", path: str, body: bytes, headers: dict[str, str], deadline: float) -> Any:
        if self._session is None:
            # The connector is shared by all requests; bounds on them are set where they come in.
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30))
        left = max(deadline - time.monotonic(), 0.001)
        timeout = aiohttp.ClientTimeout(total=left, sock_connect=min(left, _CONNECT_S))
        return self._session.post(f"http://{attempt.address}{path}", data=body, headers=headers, timeout=timeout)


async def _draw(handle: DeploymentHandle) -> Any:
    """A replica by Ray Serve's choice; waits for one where there is none.

    Only the choice is Ray Serve's here; the request itself goes past it, so it reserves nothing. But only who waits to
    reserve a place is counted as queued (`AsyncioRouter.choose_replica`), and the count is what brings the first
    replica of a deployment that scaled to zero.
    """
    try:
        async with asyncio.timeout(_DRAW_S), handle.choose_replica(_reserve=False) as selection:
            return selection._replica
    except TimeoutError:
        async with handle.choose_replica() as selection:
            return selection._replica


class _Tries:
    """How often a request may still be tried again after a server error."""

    def __init__(self, left: int):
        self.left = left


class _Attempt:
    """One replica that a request is sent to."""

    def __init__(self, address: str, tries: _Tries):
        self.address, self._tries = address, tries

    def may_try_again(self) -> bool:
        """Whether the request goes on after this replica's own 5xx."""
        self._tries.left -= 1
        return self._tries.left >= 0


def _late() -> ApiError:
    return ApiError(408, "the request took longer than it may", code="timeout")


def _refused_late(events: bytes) -> ApiError:
    """A stream whose first event is an error: some fields vLLM checks only once it has answered with status 200."""
    answer = events.split(b"\n\n", 1)[0].removeprefix(b"data: ")
    try:
        code = json.loads(answer)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        code = None
    return _refused(code if isinstance(code, int) and 400 <= code < 600 else 500, answer, {})


def _refused(status: int, answer: bytes, given: Mapping[str, str]) -> ApiError:
    """A replica's error as ours: vLLM's are JSON in nearly OpenAI's shape, Ray Serve's own are plain text."""
    headers = {"retry-after": given["retry-after"]} if "retry-after" in given else {}
    if status == 429:
        return ApiError(429, "the model's queue is full; try again", headers=headers or {"retry-after": "1"})
    if status >= 500:  # what a replica says of its own failure may name paths and hosts: that is for the log
        logger.error("a replica answered %d: %r", status, answer[:500])
        return ApiError(status, "the model's replica failed", headers=headers)
    try:
        error = json.loads(answer)["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError):
        message, param = answer[:500].decode("utf-8", "replace") or "the model refused the request", None
    return ApiError(status, message, param if isinstance(param, str) else None, headers=headers)
