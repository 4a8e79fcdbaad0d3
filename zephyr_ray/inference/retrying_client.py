"""Reads requests to one member of a pool -> answers or failures: bounded, retried, paid for once.

A request that the ledger holds a reply to is not sent again. Waits between tries are random up to a doubling bound
(tenacity), or what the server's Retry-After says.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import tenacity

from zephyr_ray.config.feedback import Price
from zephyr_ray.inference.clients import Busy, Refused, Reply, Server, Unusable
from zephyr_ray.inference.concurrency import AdaptiveLimit
from zephyr_ray.inference.request_plan import Answer, Failure
from zephyr_ray.inference.response_cache import LedgerLink
from zephyr_ray.pipeline.artifacts import content_id

_LONGEST_WAIT_S = 120.0  # that a Retry-After may ask for
_SILENCE = 20  # requests in a row without an answer, retries and all, after which a member is given up
_TOKENS = 1e6  # that a price is for

_sleep = asyncio.sleep
_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=30)


class _GivenUp(Exception):  # noqa: N818
    """The member is not asked any more."""


class Member:
    """One server of a pool, as one worker holds it."""

    def __init__(
        self,
        server: Server,
        *,
        in_flight: int,
        retries: int,
        identity: str = "",
        ledger: LedgerLink | None = None,
        price: Price | None = None,
    ):
        """
        Args:
            server: Who answers.
            in_flight: Requests that may be open.
            retries: How often a request is sent again.
            identity: Who answers, wherever it runs: with the request, what the ledger knows a reply by.
            ledger: Keeps replies. None: nothing is kept, and nothing costs.
            price: What tokens cost.
        """
        self._server, self._retries, self._identity = server, retries, identity
        self._ledger, self._price = ledger, price
        self._limit = AdaptiveLimit(in_flight)
        self._failed_in_a_row = 0
        self._given_up: str | None = None

    async def ask(self, prompt_id: str, body: dict[str, Any], known: Mapping[str, Any]) -> Answer | Failure:
        """One answer.

        Args:
            prompt_id: Of the row that the request is for.
            body: Of the request, less the model.
            known: The ledger's replies for this row, by key.
        """
        key = content_id(self._identity, {name: value for name, value in body.items() if value is not None})
        if key in known:
            return Answer(**known[key])
        usd = self._most_it_costs(body)
        # Before its turn: requests that wait for money must not stand in the way of those that hold it.
        if self._ledger is not None and usd and not await self._ledger.reserve(usd):
            return Failure("the budget is spent", "over_budget")
        outcome = await self._try(body)
        self._note(outcome)
        if isinstance(outcome, Failure):
            if self._ledger is not None and usd:
                await self._ledger.release(usd)
            return outcome
        answer = Answer(outcome.content, outcome.finish_reason, outcome.tokens)
        if self._ledger is not None:
            record = {
                "prompt_id": prompt_id,
                "key": key,
                "answer": vars(answer),
                "prompt_tokens": outcome.prompt_tokens,
                "usd": self._cost(outcome, usd),
            }
            await self._ledger.record(record, usd)
        return answer

    async def _try(self, body: dict[str, Any]) -> Reply | Failure:
        """The request, sent until there is a reply, it is refused, or the retries are used up."""
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
            return Failure(str(error), "failed")
        except Refused as error:
            return Failure(str(error), "refused")
        except _GivenUp as given_up:
            return Failure(str(given_up), "given_up")
        except Unusable as error:
            self._given_up = f"cannot be used: {error}"
            return Failure(self._given_up, "given_up")

    async def _send(self, body: dict[str, Any]) -> Reply:
        """Sends once, in its turn; a request that waits to be sent again does not stand in the way of others."""
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

    def _note(self, outcome: Reply | Failure) -> None:
        """Gives the member up once it has been silent for long: a dead server would cost every row its retries."""
        is_silent = isinstance(outcome, Failure) and outcome.kind == "failed"
        self._failed_in_a_row = self._failed_in_a_row + 1 if is_silent else 0
        if self._failed_in_a_row >= _SILENCE and self._given_up is None:
            assert isinstance(outcome, Failure)
            self._given_up = f"{_SILENCE} requests in a row had no answer: {outcome.reason}"

    def _most_it_costs(self, body: dict[str, Any]) -> float:
        """US dollars: a token of text is a byte at least, and an answer has `max_tokens` at most."""
        if self._price is None or self._ledger is None:
            return 0.0
        prompt = sum(len(message["content"].encode()) + _TURN_TOKENS for message in body["messages"])
        schema = len(str(body.get("response_format") or ""))
        return ((prompt + schema) * self._price.input + body["max_tokens"] * self._price.output) / _TOKENS

    def _cost(self, reply: Reply, reserved: float) -> float:
        """What the reply cost; what it can have cost at most where the server does not say how long it was."""
        if self._price is None or reply.tokens is None or reply.prompt_tokens is None:
            return reserved
        return (reply.prompt_tokens * self._price.input + reply.tokens * self._price.output) / _TOKENS


_TURN_TOKENS = 16  # that a chat template puts around a message


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, Busy) else None
    if asked is None:
        return _backoff(state)
    return min(asked, _LONGEST_WAIT_S) * random.uniform(1.0, 1.1)  # a little later, and not all at once
