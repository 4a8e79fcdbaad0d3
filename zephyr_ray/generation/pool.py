"""Ray Data actors that ask the teachers: for instructions, and for whole dialogues."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from zephyr_ray import chat_template
from zephyr_ray.config.generation import Generation
from zephyr_ray.generation import chain
from zephyr_ray.generation.chain import Unanswered
from zephyr_ray.generation.prompts import Message
from zephyr_ray.inference.pool import Pool
from zephyr_ray.inference.request_plan import Completion, Failure
from zephyr_ray.inference.seeds import request_seed
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.tokenizer import TokenizerSource
from zephyr_ray.schemas import MESSAGES, Dropped, Reason
from zephyr_ray.serving.stage_deployments import Application

REQUESTS = pa.schema([("prompt_id", pa.string()), ("teacher", pa.string()), ("text", pa.string())])
"""A request for a teacher's reply to a text."""
REPLIES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("content", pa.string()),
        ("finish_reason", pa.string()),
        ("failure", pa.string()),
        ("error", pa.string()),
    ]
)
"""A reply, or the kind of the failure and why (`request_plan.Failure`)."""
MADE = pa.schema(
    [
        ("dialogue_id", pa.string()),
        ("messages", MESSAGES),
        ("source", pa.string()),
        ("failure", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""A dialogue, or why there is none: the kind of a failure or a `Reason`, and the details."""


class TeacherPool(Pool):
    """One worker's clients of the teachers."""

    def __init__(
        self,
        section: Generation,
        run_seed: int,
        applications: Mapping[str, Application],
        tokenizers: Mapping[str, TokenizerSource],
        ledger: Any = None,
    ):
        """
        Args:
            section: The teachers, and what they are asked.
            run_seed: Of the run.
            applications: The teachers that are deployments, by name.
            tokenizers: Of the teachers, by name, if a method needs them.
            ledger: Handle of the stage's `Ledger` actor, if it keeps one.
        """
        super().__init__(section.pool, section.workers, applications=applications, ledger=ledger)
        self.section, self._run_seed = section, run_seed
        self.tokenizers = {name: source.load() for name, source in tokenizers.items()}

    async def ask(
        self, row: Mapping[str, Any], number: int, temperature: float, known: Mapping[str, Any], **body: Any
    ) -> Completion:
        """One reply of the row's teacher.

        Args:
            row: With its `prompt_id` and `teacher`.
            number: Of the request among the row's.
            temperature: Of sampling.
            known: The ledger's replies for this row.
            body: Fields of the request: `messages` or `prompt`, and more.

        Raises:
            Unanswered: There is none.
        """
        section, row_id, teacher = self.section, row["prompt_id"], row["teacher"]
        request = {
            "seed": request_seed(self._run_seed, row_id, teacher, number),
            "temperature": temperature,
            "top_p": section.top_p,
            "max_tokens": section.max_tokens,
            **body,
            "extra_body": {**body.get("extra_body", {}), **section.extra} or None,
        }
        outcome = await self.members[teacher].ask(row_id, request, known)
        if isinstance(outcome, Failure):
            raise Unanswered(Failure(f"{teacher}: {outcome.reason}", outcome.kind))
        return outcome


class RequestPool(TeacherPool):
    """Answers `REQUESTS` with `REPLIES`."""

    async def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        known = await self.known([row["prompt_id"] for row in rows])
        replies = await asyncio.gather(*(self._reply(row, known.get(row["prompt_id"], {})) for row in rows))
        return pa.Table.from_pylist(replies, schema=REPLIES)

    async def _reply(self, row: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        messages = [{"role": "user", "content": row["text"]}]
        reply = {"prompt_id": row["prompt_id"]}
        try:
            completion = await self.ask(row, 0, self.section.user_temperature, known, messages=messages)
        except Unanswered as unanswered:
            return reply | {"failure": unanswered.failure.kind, "error": unanswered.failure.reason}
        return reply | {"content": completion.content, "finish_reason": completion.finish_reason}


class DialoguePool(TeacherPool):
    """Makes `MADE` of `plan.PLANNED`: each dialogue is a chain of requests, and all of them run concurrently."""

    async def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        known = await self.known([row["prompt_id"] for row in rows if row["prompt_id"]])
        made = await asyncio.gather(*(self._row(row, known.get(row["prompt_id"], {})) for row in rows))
        return pa.Table.from_pylist(made, schema=MADE)

    async def _row(self, row: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        made = {"source": row["source"]}
        try:
            if row["messages"] is None:
                raise Dropped(Reason.NO_INSTRUCTION, "the teachers found no instruction for it that is like no other")
            method = self.section.method(row["method"])
            messages = await chain.dialogue(method, row["messages"], _Teacher(self, row, known))
        except Dropped as dropped:
            return made | {"reason": str(dropped.reason), "detail": dropped.detail}
        except Unanswered as unanswered:
            return made | {"failure": unanswered.failure.kind, "detail": unanswered.failure.reason}
        return made | {"dialogue_id": content_id(messages), "messages": messages}


class _Teacher:
    """The teacher of one dialogue (`chain.Teacher`)."""

    def __init__(self, pool: TeacherPool, row: Mapping[str, Any], known: Mapping[str, Any]):
        self._pool, self._row, self._known = pool, row, known
        self._asked = 0

    async def answer(self, messages: Sequence[Message]) -> Completion:
        return await self._ask(self._pool.section.temperature, messages=list(messages))

    async def write(self, request: str) -> Completion:
        return await self._ask(self._pool.section.user_temperature, messages=[{"role": "user", "content": request}])

    async def go_on_as_user(self, messages: Sequence[Message]) -> Completion:
        start = chat_template.encode_user_start(self._pool.tokenizers[self._row["teacher"]], messages)
        stop = {"stop": [start.end], "extra_body": {"stop_token_ids": list(start.end_ids)} if start.end_ids else {}}
        return await self._ask(self._pool.section.user_temperature, prompt=start.ids, **stop)

    async def _ask(self, temperature: float, **body: Any) -> Completion:
        self._asked += 1
        return await self._pool.ask(self._row, self._asked - 1, temperature, self._known, **body)
