"""Ray Data actor that samples completions from a pool of endpoints and deployments."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from zephyr_ray.config.feedback import Deployment, Endpoint, Sampling
from zephyr_ray.config.serving import semantic_engine
from zephyr_ray.inference.clients import DeploymentClient, EndpointClient
from zephyr_ray.inference.request_plan import (
    Completion,
    CompletionRequest,
    Failure,
    candidates_row,
    messages_of,
    plan,
    worst,
)
from zephyr_ray.inference.response_cache import LedgerLink
from zephyr_ray.inference.retrying_client import RetryingClient
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import CANDIDATES
from zephyr_ray.serving.stage_deployments import Application

ANSWERED = pa.schema([*CANDIDATES, ("failure", pa.string())])
"""Candidates, with the kind of the worst failure among a row's requests (`request_plan.worst`), null if none failed."""

_BATCHES_PER_CALL = 4  # batches of a block that Ray Data runs concurrently in an async actor
_MAX_BATCH = 256
CALLS = 4  # blocks that an actor takes concurrently, so that small ones keep it busy


class Pool:
    """One worker's clients of the members of a pool, with its share of each member's open requests."""

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
            workers: Number of workers that share a member's `max_in_flight`.
            applications: The applications of the members that are deployments, by name.
            ledger: Handle of the stage's `Ledger` actor, if there is one.
        """
        self._ledger = LedgerLink(ledger) if ledger is not None else None
        self.members = {
            each.name: RetryingClient(
                EndpointClient(each, in_flight_share(each, workers))
                if isinstance(each, Endpoint)
                else DeploymentClient(applications[each.name].name, each),
                identity=_member_identity(each, applications),
                in_flight=in_flight_share(each, workers),
                retries=each.retries,
                ledger=self._ledger,
                price=each.price if isinstance(each, Endpoint) else None,
            )
            for each in servers
        }

    async def known(self, prompt_ids: list[str]) -> dict[str, dict[str, Any]]:
        """The completions that the ledger already holds for these rows, by request key."""
        return await self._ledger.replies(prompt_ids) if self._ledger is not None else {}


class CandidatePool(Pool):
    """Samples the completions of each prompt."""

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
        outcomes = await asyncio.gather(*(self._complete(prompt, request, known) for request in requests))
        return candidates_row(prompt, requests, outcomes) | {"failure": worst(outcomes)}

    async def _complete(
        self, prompt: dict[str, Any], request: CompletionRequest, known: Mapping[str, Any]
    ) -> Completion | Failure:
        body = {"messages": messages_of(request, prompt["messages"]), "seed": request.seed, **self._fields}
        return await self.members[request.member].ask(prompt["prompt_id"], body, known)


def _member_identity(member: Endpoint | Deployment, applications: Mapping[str, Application]) -> str:
    """Identifies a member: an endpoint by its name and model, a deployment by its weights and what of its engine's
    options changes the answers.

    It is part of the key of paid replies: with a further field here, all of them would be requested again.
    """
    if isinstance(member, Endpoint):
        return content_id("endpoint", member.name, member.model)
    weights = applications[member.name].fingerprint
    engine = semantic_engine(member.engine)
    return content_id("deployment", member.name, weights, member.dtype, member.max_model_len, engine)


def in_flight_share(member: Endpoint | Deployment, workers: int) -> int:
    """Requests that one worker may have open, so that all workers together stay within the member's limit."""
    return member.max_in_flight // workers


def rows_per_batch(most_in_flight: int, requests_per_row: float) -> int:
    """Rows per batch: a block's concurrent batches hold twice the rows that keep a worker busy, so it never idles."""
    ahead = math.ceil(most_in_flight / requests_per_row)
    return max(1, min(_MAX_BATCH, -(-2 * ahead // _BATCHES_PER_CALL)))
