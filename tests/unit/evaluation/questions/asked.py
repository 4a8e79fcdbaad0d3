"""A model that is asked without a network: it replies from a list, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zephyr_ray.inference.request_plan import Completion, Failure

REFUSED = Failure("not this", "refused")


class Model:
    """`asking.Ask`, whose replies are texts, or failures."""

    def __init__(self, *replies: str | Failure):
        self._replies = list(replies)
        self.asked: list[tuple[list[dict[str, str]], int, Mapping[str, Any]]] = []

    async def __call__(
        self, messages: Sequence[dict[str, str]], number: int, fields: Mapping[str, Any], /
    ) -> Completion | Failure:
        self.asked.append(([*messages], number, fields))
        reply = self._replies.pop(0)
        return reply if isinstance(reply, Failure) else Completion(reply, "stop", len(reply))
