"""Reads blocks of prompts -> blocks of answered prompts, by requests to a pool of servers. A Ray Data actor."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from zephyr_ray.config.feedback import Deployment, Endpoint, Sampling
from zephyr_ray.inference.clients import DeployedServer, HttpServer
from zephyr_ray.inference.request_plan import Answer, Failure, Request, candidates_row, messages_of, plan, worst
from zephyr_ray.inference.response_cache import LedgerLink
from zephyr_ray.inference.retrying_client import Member
from zephyr_ray.pipeline.artifacts import content_id
from zephyr_ray.schemas import CANDIDATES
from zephyr_ray.serving.stage_deployments import Application

ANSWERED = pa.schema([*CANDIDATES, ("failure", pa.string())])
"""Candidates, and the kind of the worst failure among a row's requests (`request_plan.worst`); null: none failed."""

_BATCHES_PER_CALL = 4  # Ray Data runs so many batches of a block side by side in an async actor
_MAX_BATCH = 256
CALLS = 4  # blocks that an actor takes side by side, so that small ones keep it busy


class Pool:
    """The members of a pool as one worker holds them: its share of every member's requests, on one event loop."""

    def __init__(
        self,
        servers: tuple[Endpoint | Deployment, ...],
        workers: int,
        *,
        applications: Mapping[str, Application],
        ledger: Any = None,
    ):
        """
        Args:
            servers: The members.
            workers: Pools among which a member's `max_in_flight` is divided.
            applications: Those that are deployments, by name.
            ledger: Handle of the stage's `Ledger` actor, if it keeps one.
        """
        self._ledger = LedgerLink(ledger) if ledger is not None else None
        self.members = {
            each.name: Member(
                HttpServer(each, in_flight_share(each, workers))
                if isinstance(each, Endpoint)
                else DeployedServer(applications[each.name].name, each),
                identity=_identity(each, applications),
                in_flight=in_flight_share(each, workers),
                retries=each.retries,
                ledger=self._ledger,
                price=each.price if isinstance(each, Endpoint) else None,
            )
            for each in servers
        }

    async def known(self, prompt_ids: list[str]) -> dict[str, dict[str, Any]]:
        """What the ledger holds for these rows."""
        return await self._ledger.replies(prompt_ids) if self._ledger is not None else {}


class CandidatePool(Pool):
    """Answers prompts."""

    def __init__(self, sampling: Sampling, run_seed: int, applications: Mapping[str, Application], ledger: Any = None):
        super().__init__(sampling.servers, sampling.workers, applications=applications, ledger=ledger)
        self._sampling, self._run_seed = sampling, run_seed
        self._fields: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop) or None,
            "extra_body": sampling.extra or None,
        }

    async def __call__(self, batch: pa.Table) -> pa.Table:
        prompts = batch.to_pylist()
        known = await self.known([prompt["prompt_id"] for prompt in prompts])
        rows = await asyncio.gather(*(self._row(prompt, known.get(prompt["prompt_id"], {})) for prompt in prompts))
        return pa.Table.from_pylist(rows, schema=ANSWERED)

    async def _row(self, prompt: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        requests = plan(self._sampling, self._run_seed, prompt["prompt_id"])
        outcomes = await asyncio.gather(*(self._answer(prompt, request, known) for request in requests))
        return candidates_row(prompt, requests, outcomes) | {"failure": worst(outcomes)}

    async def _answer(self, prompt: dict[str, Any], request: Request, known: Mapping[str, Any]) -> Answer | Failure:
        body = {"messages": messages_of(request, prompt["messages"]), "seed": request.seed, **self._fields}
        return await self.members[request.member].ask(prompt["prompt_id"], body, known)


def _identity(member: Endpoint | Deployment, applications: Mapping[str, Application]) -> str:
    """What a member is: an endpoint by its name and model, a deployment by its weights and engine.

    Replies that were paid for are known by it: a field more, and they would all be asked for again.
    """
    if isinstance(member, Endpoint):
        return content_id("endpoint", member.name, member.model)
    weights = applications[member.name].fingerprint
    return content_id("deployment", member.name, weights, member.dtype, member.max_model_len, member.engine)


def in_flight_share(member: Endpoint | Deployment, workers: int) -> int:
    """Requests that one of the workers may have open, so that all together stay within the member's bound."""
    return member.max_in_flight // workers


def rows_per_batch(most_in_flight: int, requests_per_row: float) -> int:
    """Rows per batch of a worker: the batches of one block hold twice what keeps it busy, so that it never runs dry."""
    ahead = math.ceil(most_in_flight / requests_per_row)
    return max(1, min(_MAX_BATCH, -(-2 * ahead // _BATCHES_PER_CALL)))
