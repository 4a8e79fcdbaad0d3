"""What becomes of a judge's strange replies: a row with null ratings, and no reply that is paid twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.inference.replying import Handle, Server, ledger, reply, totals, usage
from tests.unit.judging.examples import judging, row
from zephyr_ray.config.feedback import Endpoint, Price
from zephyr_ray.data.judgments import to_rows
from zephyr_ray.judging.pool import JudgePool
from zephyr_ray.schemas import CANDIDATES

NULL = {"role": "assistant", "content": None}
RATED = json.dumps({"answer_1": {"critique": "as it is\ud83d", "rating": 7}}, ensure_ascii=False)
PAID = (50 * 10 + 10 * 30) / 1e6


@pytest.mark.parametrize("given", [reply({"content": RATED}), reply({"content": RATED}, {"type": "stop"})])
def test_a_strange_reply_is_read_and_paid_once(tmp_path: Path, given: Any) -> None:
    sent, judged, counted = judge(tmp_path, given)
    (completion,) = judged["completions"]
    assert (completion["overall_score"], completion["critique"]) == (7, "as it is?")
    assert [each["complaint"] for each in judged["replies"]] == [None]
    assert (sent, counted["usd"]) == (1, pytest.approx(PAID))


def test_a_count_that_is_none_costs_what_was_reserved(tmp_path: Path) -> None:
    given = usage(-5) | {"choices": reply({"content": RATED})["choices"]}
    sent, judged, counted = judge(tmp_path, given)
    assert judged["completions"][0]["overall_score"] == 7
    assert (sent, counted["usd"]) == (1, pytest.approx((50 * 10 + 64 * 30) / 1e6))


def test_a_thought_that_takes_all_tokens_is_a_null_rating_and_kept(tmp_path: Path) -> None:
    sent, judged, counted = judge(tmp_path, reply(NULL, "length"))
    assert judged["reason"] is None
    assert judged["completions"][0]["overall_score"] is None
    assert [each["raw"] for each in judged["replies"]] == ["", ""]
    assert all("cut off at the length limit" in each["complaint"] for each in judged["replies"])
    # The question, and once more with the complaint: another request.
    assert (sent, counted["requests"], counted["usd"]) == (2, 2, pytest.approx(2 * PAID))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (reply(NULL, "content_filter"), "a content filter took the completion away"),
        (reply(NULL | {"refusal": "I will\n\ud83dnot"}), "the model refused: I will ?not"),
        (reply(choices=["x"]), "the reply's choice has no message, but its usage counts tokens"),
    ],
)
def test_a_reply_without_a_completion_is_a_null_rating_and_paid_once(tmp_path: Path, given: Any, why: str) -> None:
    sent, judged, counted = judge(tmp_path, given)
    assert judged["reason"] is None
    assert judged["completions"][0]["overall_score"] is None
    assert judged["error"] == f"j (overall): {why}"
    assert (sent, counted["requests"], counted["usd"]) == (1, 1, pytest.approx(PAID))


def test_a_reply_that_is_nothing_costs_nothing_and_is_asked_for_again(tmp_path: Path) -> None:
    sent, judged, counted = judge(tmp_path, reply(choices=5, usage=None))
    assert (judged["reason"], judged["detail"]) == ("request_failed", "j (overall): the reply has no choices")
    assert (sent, counted["requests"], counted["usd"]) == (2, 0, 0)


def judge(folder: Path, given: Any) -> tuple[int, dict[str, Any], dict[str, float]]:
    """How many requests are sent in two runs together, the row of the second, and what the ledger counts."""
    member = Endpoint(
        type="endpoint", name="j", base_url="http://h/v1", model="m", retries=0, price=Price(input=10, output=30)
    )
    asked = judging(aspects=("overall",), position_check=0, parse_retries=1, max_tokens=64)
    asked = asked.model_copy(update={"models": (member,)})
    server = Server(given)

    async def run() -> dict[str, Any]:
        pool = JudgePool(asked, 1, 0, {}, Handle(ledger(str(folder))))
        pool.members["j"]._server = server
        return to_rows(await pool(pa.Table.from_pylist([row("a bird")], schema=CANDIDATES))).to_pylist()[0]

    asyncio.run(run())
    judged = asyncio.run(run())
    return server.sent, judged, totals(ledger(str(folder)))
