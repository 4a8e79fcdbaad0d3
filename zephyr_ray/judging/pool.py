"""Ray Data actor that has candidates judged by a pool of language models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from zephyr_ray.config.feedback import LanguageModelJudges
from zephyr_ray.inference.pool import Pool
from zephyr_ray.inference.request_plan import Failure, worst
from zephyr_ray.judging.aggregation import Outcome, judged_row
from zephyr_ray.judging.llm_judge import CutReply, NoReply, ask
from zephyr_ray.judging.prompt import Message, Question, question_seed, questions_of
from zephyr_ray.schemas import JUDGMENTS
from zephyr_ray.serving.stage_deployments import Application

JUDGED = pa.schema([*JUDGMENTS, ("failure", pa.string())])
"""Judgments, with the kind of the worst failure among a row's requests (`request_plan.worst`), null if none failed."""


class JudgePool(Pool):
    """Judges rows of candidates with language models."""

    def __init__(
        self,
        section: LanguageModelJudges,
        workers: int,
        run_seed: int,
        applications: Mapping[str, Application],
        ledger: Any = None,
    ):
        """
        Args:
            section: The judges, and what they are asked.
            workers: Pools among which a judge's `max_in_flight` is divided.
            run_seed: Of the run.
            applications: The judges that are deployments, by name.
            ledger: Handle of the stage's `Ledger` actor, if it keeps one.
        """
        super().__init__(section.models, workers, applications=applications, ledger=ledger)
        self._section, self._run_seed = section, run_seed
        self._fields: dict[str, Any] = {
            "temperature": section.temperature,
            "max_tokens": section.max_tokens,
            "extra_body": section.extra or None,
        }

    async def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        known = await self.known([row["prompt_id"] for row in rows])
        judged = await asyncio.gather(*(self._judge_row(row, known.get(row["prompt_id"], {})) for row in rows))
        return pa.Table.from_pylist(judged, schema=JUDGED)

    async def _judge_row(self, row: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        failures: list[Failure] = []
        outcomes = await asyncio.gather(
            *(
                self._ask(question, row, known, failures)
                for question in questions_of(row, self._section, self._run_seed)
            )
        )
        return judged_row(row, outcomes) | {"failure": worst(failures)}

    async def _ask(
        self, question: Question, row: dict[str, Any], known: Mapping[str, Any], failures: list[Failure]
    ) -> Outcome:
        async def complete(
            messages: Sequence[Message], attempt: int, response_format: Mapping[str, Any] | None, /
        ) -> str:
            body = {
                "messages": list(messages),
                "seed": question_seed(self._run_seed, row["prompt_id"], question, attempt),
                **self._fields,
            }
            if response_format is not None:
                body["response_format"] = response_format
            outcome = await self.members[question.judge].ask(row["prompt_id"], body, known)
            if isinstance(outcome, Failure):
                failures.append(outcome)
                raise NoReply(outcome.reason)
            if outcome.finish_reason == "length":
                raise CutReply(outcome.content)
            return outcome.content

        return await ask(question, row, self._section, complete)
