"""Client of one pool member that limits concurrency, retries, and pays for each reply once.

A request whose reply is in the ledger is not sent again. Waits between attempts are random up to a doubling bound
(tenacity), or follow the server's Retry-After.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import tenacity

from zephyr_ray.config.feedback import Price
from zephyr_ray.inference.clients import Busy, Client, Refused, Unusable
from zephyr_ray.inference.concurrency import AdaptiveLimit
from zephyr_ray.inference.request_plan import Completion, Failure, answer_of, outcome_of
from zephyr_ray.inference.response_cache import LedgerLink
from zephyr_ray.inference.server_reply import Reply
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import storable

_LONGEST_WAIT_S = 120.0  # cap on Retry-After
_SILENCE = 20  # failed requests in a row, including retries, after which a member is given up
_TOKENS = 1e6  # prices are per million tokens

_sleep = asyncio.sleep
_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=30)


class _GivenUp(Exception):  # noqa: N818
    """The member is no longer used."""


class RetryingClient:
    """One worker's client of one pool member."""

    def __init__(
        self,
        server: Client,
        *,
        in_flight: int,
        retries: int,
        identity: str = "",
        ledger: LedgerLink | None = None,
        price: Price | None = None,
    ):
        """
        Args:
            server: The client that sends each request once.
            in_flight: Limit on open requests.
            retries: How often a request is sent again.
            identity: Identifies the member wherever it runs; together with the request it is the ledger's key.
            ledger: Keeps replies. None: none are kept, and none cost anything.
            price: Price of tokens.
        """
        self._server, self._retries, self._identity = server, retries, identity
        self._ledger, self._price = ledger, price
        self._limit = AdaptiveLimit(in_flight)
        self._failed_in_a_row = 0
        self._given_up: str | None = None

    async def ask(self, prompt_id: str, body: dict[str, Any], known: Mapping[str, Any]) -> Completion | Failure:
        """Requests one completion. A whole reply is recorded, even if it has no completion (`Failure` "refused").

        Args:
            prompt_id: Id of the row that the request belongs to.
            body: The request's body, without the model.
            known: The ledger's replies for this row, by key.
        """
        key = content_id(self._identity, {name: value for name, value in body.items() if value is not None})
        if key in known:
            return outcome_of(known[key])
        usd = self._cost_bound(body)
        # Reserve before queueing: requests that wait for money must not block those that have it.
        if self._ledger is not None and usd and not await self._ledger.reserve(usd):
            return Failure("the budget is spent", "over_budget")
        outcome = await self._send_with_retries(body)
        self._give_up_if_silent(outcome)
        if isinstance(outcome, Failure):
            if self._ledger is not None and usd:
                await self._ledger.release(usd)
            return outcome
        record = {"prompt_id": prompt_id, "key": key, **self._counted(outcome, body)}
        if self._ledger is not None:
            await self._ledger.record(record, usd)
        return outcome_of(record["answer"])

    async def _send_with_retries(self, body: dict[str, Any]) -> Reply | Failure:
        """Sends the request until it is answered or refused, or the retries are used up."""
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._retries + 1),
            wait=_wait,
            retry=tenacity.retry_if_exception_type(Busy),
            sleep=_sleep,
            reraise=True,
        )
        try:
            return await retrying(self._send, body)
        except Busy as error:
            return Failure(storable(str(error)), "failed")
        except Refused as error:
            return Failure(storable(str(error)), "refused")
        except _GivenUp as given_up:
            return Failure(str(given_up), "given_up")
        except Unusable as error:
            self._given_up = storable(f"cannot be used: {error}")
            return Failure(self._given_up, "given_up")

    async def _send(self, body: dict[str, Any]) -> Reply:
        """Sends once within the limit; a request that waits for its retry does not count as open."""
        async with self._limit:
            if self._given_up:
                raise _GivenUp(self._given_up)
            asked_at = asyncio.get_running_loop().time()
            try:
                reply = await self._server.send(body)
            except Busy as error:
                if error.is_overload:
                    self._limit.slow_down(asked_at)
                raise
            self._limit.speed_up()
            return reply

    def _give_up_if_silent(self, outcome: Reply | Failure) -> None:
        """Gives up a member after many failures in a row: a dead server would cost every row its retries."""
        is_silent = isinstance(outcome, Failure) and outcome.kind == "failed"
        self._failed_in_a_row = self._failed_in_a_row + 1 if is_silent else 0
        if self._failed_in_a_row >= _SILENCE and self._given_up is None:
            assert isinstance(outcome, Failure)
            self._given_up = f"{_SILENCE} requests in a row had no answer: {outcome.reason}"

    def _cost_bound(self, body: dict[str, Any]) -> float:
        """Upper bound on what the request costs, in US dollars."""
        return self._usd(_prompt_bound(body), body["max_tokens"])

    def _counted(self, reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
        """The reply as the ledger counts it; tokens that the server does not report are those that were reserved."""
        prompt_tokens = _prompt_bound(body) if reply.prompt_tokens is None else reply.prompt_tokens
        answer = answer_of(reply, body["max_tokens"])
        return {"answer": answer, "prompt_tokens": prompt_tokens, "usd": self._usd(prompt_tokens, answer["tokens"])}

    def _usd(self, prompt: int, completion: int) -> float:
        """The price of so many tokens in US dollars; 0 without a price or a ledger."""
        if self._price is None or self._ledger is None:
            return 0.0
        return (prompt * self._price.input + completion * self._price.output) / _TOKENS


def _prompt_bound(body: dict[str, Any]) -> int:
    """Upper bound on the tokens of a prompt: a token has at least one byte. A completion's prompt is token ids."""
    if "prompt" in body:
        return len(body["prompt"])
    messages = sum(len(message["content"].encode()) + _TURN_TOKENS for message in body["messages"])
    return messages + len(str(body.get("response_format") or ""))


_TURN_TOKENS = 16  # upper bound on a chat template's tokens around a message


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, Busy) else None
    if asked is None:
        return _backoff(state)
    return min(asked, _LONGEST_WAIT_S) * random.uniform(1.0, 1.1)  # slightly later, and not all at the same time
