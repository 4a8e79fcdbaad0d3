"""Who a member of a pool is, by which paid replies are known, and what becomes of its strange replies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.inference.replying import Handle, Server, ledger, reply, totals, usage
from zephyr_ray.config.feedback import Deployment, Endpoint, Price, Sampling
from zephyr_ray.data.candidates import to_rows
from zephyr_ray.inference.pool import CandidatePool, _member_identity
from zephyr_ray.inference.request_plan import Completion, outcome_of
from zephyr_ray.schemas import PROMPTS
from zephyr_ray.serving.stage_deployments import Application


def endpoint(**fields: Any) -> str:
    return _member_identity(
        Endpoint(**{"type": "endpoint", "name": "a", "base_url": "http://h/v1", "model": "m", **fields}), {}
    )


def deployment(weights: str = "weights", **fields: Any) -> str:
    member = Deployment(**{"type": "deployment", "name": "a", "model": "sft", **fields})
    return _member_identity(member, {"a": Application(f"candidates-a-{weights}", weights)})


def test_it_does_not_change_with_the_version() -> None:
    assert endpoint() == "681cca172e52f418ecdd6f11b99d7583"
    assert deployment() == "ec6aced4295387bf6e1b5ede47d0bd27"


@pytest.mark.parametrize(
    "fields", [{"base_url": "https://elsewhere/v1"}, {"max_in_flight": 1}, {"price": {"input": 1, "output": 1}}]
)
def test_an_endpoint_is_the_same_wherever_it_is(fields: dict[str, Any]) -> None:
    assert endpoint(**fields) == endpoint()


@pytest.mark.parametrize("fields", [{"name": "b"}, {"model": "n"}])
def test_another_endpoint(fields: dict[str, Any]) -> None:
    assert endpoint(**fields) != endpoint()


@pytest.mark.parametrize("fields", [{"model": "/models/sft"}, {"max_replicas": 2}, {"labels": {"group": "a"}}])
def test_a_deployment_is_the_same_wherever_it_runs(fields: dict[str, Any]) -> None:
    assert deployment(**fields) == deployment()


@pytest.mark.parametrize(
    "fields",
    [{"weights": "trained further"}, {"dtype": "float32"}, {"max_model_len": 64}, {"engine": {"quantization": "fp8"}}],
)
def test_a_deployment_that_may_answer_otherwise(fields: dict[str, Any]) -> None:
    assert deployment(**fields) != deployment()


NULL = {"role": "assistant", "content": None}
PAID = (50 * 10 + 10 * 30) / 1e6
PROMPT_BOUND, MAX_TOKENS = len("q") + 16, 64


@pytest.mark.parametrize(
    ("given", "content", "finish_reason", "tokens", "usd"),
    [
        (reply(), "hi", "stop", 10, PAID),
        (usage("10"), "hi", "stop", None, (50 * 10 + MAX_TOKENS * 30) / 1e6),
        (usage(10, -10_000_000), "hi", "stop", 10, (PROMPT_BOUND * 10 + 10 * 30) / 1e6),
        (usage(2**40, True), "hi", "stop", None, (PROMPT_BOUND * 10 + MAX_TOKENS * 30) / 1e6),
        (reply(usage=None), "hi", "stop", None, (PROMPT_BOUND * 10 + MAX_TOKENS * 30) / 1e6),
        (reply({"content": "a\ud83d"}), "a?", "stop", 10, PAID),
        (reply(finish_reason=7), "hi", None, 10, PAID),
        (reply(NULL, "length"), "", "length", 10, PAID),
    ],
)
def test_a_strange_reply_is_a_completion_that_is_paid_once(
    tmp_path: Path, given: Any, content: str, finish_reason: str | None, tokens: int | None, usd: float
) -> None:
    sent, row, counted = sampled(tmp_path, given)
    (completion,) = row["completions"]
    assert (completion["content"], completion["finish_reason"], completion["tokens"]) == (
        content,
        finish_reason,
        tokens,
    )
    assert row["error"] is None
    assert row["reason"] is None
    assert (sent, counted["requests"], counted["usd"]) == (1, 1, pytest.approx(usd))
    assert counted["prompt_tokens"] * 10 + counted["tokens"] * 30 == pytest.approx(usd * 1e6)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (reply(NULL, "content_filter"), "a content filter took the completion away"),
        (reply(NULL | {"refusal": "I will\n\ud83dnot"}), "the model refused: I will ?not"),
        (reply({"content": ["hi"]}), "the completion is not text"),
        (reply(choices=[None]), "the reply's choice has no message, but its usage counts tokens"),
    ],
)
def test_a_reply_without_a_completion_is_refused_and_paid_once(tmp_path: Path, given: Any, why: str) -> None:
    sent, row, counted = sampled(tmp_path, given)
    assert (row["reason"], row["source"], row["detail"]) == ("request_refused", "p", f"a (sample 0): {why}")
    assert (sent, counted["requests"], counted["usd"]) == (1, 1, pytest.approx(PAID))


def test_a_reply_that_is_nothing_costs_nothing_and_is_asked_for_again(tmp_path: Path) -> None:
    sent, row, counted = sampled(tmp_path, reply(choices=[None], usage=None))
    assert (row["reason"], row["detail"]) == ("request_failed", "a (sample 0): the reply's choice has no message")
    assert (sent, counted["requests"], counted["usd"]) == (2, 0, 0)


def test_an_answer_that_an_earlier_version_kept_unchecked_is_a_row_all_the_same() -> None:
    answer = {"content": "a\ud83d", "finish_reason": {"type": "stop"}, "tokens": 2**40}
    assert outcome_of(answer) == Completion("a?", None, None)


def sampled(folder: Path, given: Any) -> tuple[int, dict[str, Any], dict[str, float]]:
    """How often a request is sent in two runs together, the row of the second, and what the ledger counts."""
    member = Endpoint(
        type="endpoint", name="a", base_url="http://h/v1", model="m", retries=0, price=Price(input=10, output=30)
    )
    sampling = Sampling(pool=(member,), max_tokens=MAX_TOKENS)
    messages = [{"role": "user", "content": "q"}]
    batch = pa.Table.from_pylist([{"prompt_id": "p", "messages": messages, "source": "s"}], schema=PROMPTS)
    server = Server(given)

    async def run() -> dict[str, Any]:
        pool = CandidatePool(sampling, 0, {}, Handle(ledger(str(folder))))
        pool.members["a"]._server = server
        return to_rows(await pool(batch)).to_pylist()[0]

    asyncio.run(run())
    row = asyncio.run(run())
    return server.sent, row, totals(ledger(str(folder)))
