"""One model is asked about rows: a chain that broke goes on where it stopped, and a refusal is told and kept."""

from __future__ import annotations

import asyncio
import functools
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.inference.replying import Handle, ledger, totals
from zephyr_ray.config.evaluation import EvaluationSection
from zephyr_ray.evaluation.questions.asking import PLANNED, AskingPool, asked_alone, to_rows
from zephyr_ray.evaluation.questions.mt_bench_answers import ANSWERS, answer_question
from zephyr_ray.inference.clients import Busy, Refused, Unusable
from zephyr_ray.inference.server_reply import Reply
from zephyr_ray.pipeline.fingerprints import content_id


class Server:
    """Answers each request in words that the request decides; fails on a turn if it was told to."""

    def __init__(self, fails: Exception | None = None, on_turn: int = 0):
        self.fails, self.on_turn = fails, on_turn
        self.sent: Counter[str] = Counter()
        self.bodies: list[Mapping[str, Any]] = []

    async def send(self, body: Mapping[str, Any]) -> Reply:
        if self.fails and len(body["messages"]) // 2 + 1 == self.on_turn:
            raise self.fails
        self.sent[content_id(body)] += 1
        self.bodies.append(body)
        return Reply(f"said {content_id(body)[:6]}", "stop", 10, 50)


def section() -> EvaluationSection:
    model = {"type": "endpoint", "name": "one", "base_url": "http://h/v1", "model": "m", "retries": 0}
    given = EvaluationSection.model_validate({"models": [model, {**model, "name": "two"}], "judge": model})
    return asked_alone(given, given.model("one"))


def made(folder: Path, server: Server, questions: int = 3) -> list[dict[str, Any]]:
    rows = [
        {"answer_id": f"id-{n}", "question": str(n), "turns": [f"question {n}", "again"], "temperature": 0.7}
        for n in range(questions)
    ]
    planned = pa.table(
        {"row_id": [row["answer_id"] for row in rows], "row": [json.dumps(row) for row in rows]}, schema=PLANNED
    )

    async def run() -> pa.Table:
        answer = functools.partial(answer_question, fields={"max_tokens": 9})
        pool = AskingPool(section(), 0, answer, ANSWERS, {}, Handle(ledger(str(folder))))
        (member,) = pool.members.values()
        member._server = server
        return await pool(planned)

    return to_rows(asyncio.run(run()), schema=ANSWERS).to_pylist()


def test_a_second_run_asks_for_nothing_and_makes_the_same(tmp_path: Path) -> None:
    server = Server()
    rows = made(tmp_path, server)
    assert [len(row["answers"]) for row in rows] == [2, 2, 2]
    assert all(row["error"] is None and row["reason"] is None for row in rows)
    assert len({body["seed"] for body in server.bodies}) == 6
    assert made(tmp_path, server) == rows
    assert made(tmp_path, server, questions=4)[:3] == rows
    assert (set(server.sent.values()), server.sent.total()) == ({1}, 8)
    assert totals(ledger(str(tmp_path)))["requests"] == 8


@pytest.mark.parametrize(
    ("error", "reason"), [(Busy("no answer"), "request_failed"), (Unusable("a wrong key"), "server_given_up")]
)
def test_a_chain_that_broke_goes_on_where_it_stopped(tmp_path: Path, error: Exception, reason: str) -> None:
    server = Server(error, on_turn=2)
    rows = made(tmp_path, server)
    assert [(row["reason"], row["source"]) for row in rows] == [(reason, f"id-{n}") for n in range(3)]
    assert all(row["detail"].startswith("one: ") for row in rows)
    assert server.sent.total() == 3  # the first turns
    server.fails = None
    assert [len(row["answers"]) for row in made(tmp_path, server)] == [2, 2, 2]
    assert (set(server.sent.values()), server.sent.total()) == ({1}, 6)


@pytest.mark.parametrize(("turn", "answers"), [(1, 0), (2, 1)])
def test_a_row_with_a_refusal_is_kept_and_says_so(tmp_path: Path, turn: int, answers: int) -> None:
    rows = made(tmp_path, Server(Refused("not this"), on_turn=turn))
    assert [len(row["answers"]) for row in rows] == [answers] * 3
    assert {row["error"] for row in rows} == {"one: not this"}
    assert {row["reason"] for row in rows} == {None}
