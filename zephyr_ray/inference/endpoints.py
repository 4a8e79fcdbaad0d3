"""Reads blocks of prompts -> blocks of `candidates`, by requests to OpenAI-compatible servers.

Retries are those of the `openai` client: 408, 409, 429 (it waits as long as Retry-After says), 5xx, timeouts and lost
connections, with a doubling wait of which a random quarter is taken off.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from zephyr_ray.errors import UserError
from zephyr_ray.inference.answers import Answer, Failure, Request, candidates_row, plan
from zephyr_ray.recipe import Endpoint, Sampling
from zephyr_ray.schemas import CANDIDATES

if TYPE_CHECKING:
    import openai

_CONNECT_S = 10.0
_CHATTY = ("openai", "httpx2", "httpcore2")


class EndpointPool:
    """The pool as one Ray Data actor holds it: its share of every member's requests, on one event loop."""

    def __init__(self, sampling: Sampling, run_seed: int):
        # Lines for each request say nothing about the run, and what they hold is not ours to vouch for.
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._sampling, self._run_seed = sampling, run_seed
        self._members = {
            member.name: _Member(member, sampling, in_flight_share(member, sampling.workers))
            for member in sampling.endpoints
        }

    async def __call__(self, batch: pa.Table) -> pa.Table:
        rows = await asyncio.gather(*(self._row(prompt) for prompt in batch.to_pylist()))
        return pa.Table.from_pylist(rows, schema=CANDIDATES)

    async def _row(self, prompt: dict[str, Any]) -> dict[str, Any]:
        requests = plan(self._sampling, self._run_seed, prompt["prompt_id"])
        outcomes = await asyncio.gather(
            *(self._members[request.member].answer(prompt["messages"], request) for request in requests)
        )
        return candidates_row(prompt, requests, outcomes)


def in_flight_share(member: Endpoint, workers: int) -> int:
    """Requests that one of the workers may have open, so that all together stay within the member's bound."""
    return member.max_in_flight // workers


def prompts_ahead(sampling: Sampling) -> int:
    """Prompts that keep every member of one worker's pool busy."""
    answering = (sampling.draw or len(sampling.members)) / len(sampling.members)
    share = max(in_flight_share(member, sampling.workers) for member in sampling.endpoints)
    return math.ceil(share / sampling.samples / answering)


class _Member:
    """One endpoint and its open requests."""

    def __init__(self, endpoint: Endpoint, sampling: Sampling, in_flight: int):
        self._open = asyncio.Semaphore(in_flight)
        self._client = _client(endpoint, in_flight)
        self._fields: dict[str, Any] = {
            "model": endpoint.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop) or None,
            "extra_body": sampling.extra or None,
        }

    async def answer(self, messages: list[dict[str, str]], request: Request) -> Answer | Failure:
        """One answer. What a server or the network does wrong is a `Failure`, once the retries are used up."""
        import openai

        try:
            async with self._open:
                reply = await self._client.chat.completions.create(
                    messages=messages,  # type: ignore[arg-type]  # the roles are checked where prompts are made
                    seed=request.seed,
                    **self._fields,
                )
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a reply that is not the JSON it says it is
            return Failure(_reason(error))
        return read_reply(reply)


def read_reply(reply: Any) -> Answer | Failure:
    """What a parsed reply says. The client does not check its shape: servers leave out what they please."""
    choices = getattr(reply, "choices", None)
    if not choices:
        return Failure("the reply has no choices")
    finish_reason, content = choices[0].finish_reason, getattr(choices[0].message, "content", None)
    if not isinstance(content, str):
        return Failure(f"the reply has no content (finish_reason {finish_reason})")
    return Answer(content, finish_reason, getattr(getattr(reply, "usage", None), "completion_tokens", None))


def _client(endpoint: Endpoint, in_flight: int) -> openai.AsyncOpenAI:
    import httpx2
    import openai

    limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    timeout = httpx2.Timeout(endpoint.timeout_s, connect=min(_CONNECT_S, endpoint.timeout_s))
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=_api_key(endpoint),
        max_retries=endpoint.retries,
        timeout=timeout,
        http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout),
    )


def _api_key(endpoint: Endpoint) -> str:
    if endpoint.api_key_env is None:
        return "none"  # the client wants one; a server without keys does not look at it
    key = os.environ.get(endpoint.api_key_env)
    if not key:
        raise UserError(
            f"sampling: {endpoint.name} needs its key in {endpoint.api_key_env}, which a worker does not have"
        )
    return key


def _reason(error: Exception) -> str:
    """The error in words, with the cause that the client leaves out of them."""
    cause = f" ({type(error.__cause__).__name__})" if error.__cause__ is not None else ""
    return f"{type(error).__name__}: {error}{cause}"
