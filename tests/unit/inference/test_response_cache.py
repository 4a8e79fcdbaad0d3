"""Replies on disk: found again after a kill, counted once, never above the budget."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zephyr_ray.inference.response_cache import Ledger, LedgerLink
from zephyr_ray.pipeline.artifacts import Artifact, Run


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    made = Run(str(tmp_path / "run")).artifact("candidates")
    made.begin("fingerprint")
    return made


def record(prompt: str, key: str, usd: float = 0.0) -> dict[str, Any]:
    answer = {"content": f"{prompt} {key}\n", "finish_reason": "stop", "tokens": 3}
    return {"prompt_id": prompt, "key": key, "answer": answer, "prompt_tokens": 5, "usd": usd}


def keep(ledger: Ledger, *records: dict[str, Any]) -> None:
    async def run() -> None:
        await asyncio.gather(*(ledger.record([each], 0.0) for each in records))

    asyncio.run(run())


def test_a_later_try_finds_every_reply(artifact: Artifact) -> None:
    keep(Ledger(artifact), record("p", "a/0"), record("p", "a/1"), record("q", "a/0"))
    keep(Ledger(artifact), record("q", "a/1"))
    later = Ledger(artifact)
    found = asyncio.run(later.replies(["p", "q", "r"]))
    assert {prompt: sorted(answers) for prompt, answers in found.items()} == {"p": ["a/0", "a/1"], "q": ["a/0", "a/1"]}
    assert found["q"]["a/1"] == {"content": "q a/1\n", "finish_reason": "stop", "tokens": 3}
    assert asyncio.run(later.totals()) == {"requests": 4, "prompt_tokens": 20, "tokens": 12, "usd": 0.0}


def test_a_reply_is_found_as_soon_as_it_is_recorded(artifact: Artifact) -> None:
    ledger = Ledger(artifact)
    keep(ledger, record("p", "a/0"))
    assert list(asyncio.run(ledger.replies(["p"]))) == ["p"]


def test_replies_outlive_a_change_of_the_recipe(artifact: Artifact) -> None:
    keep(Ledger(artifact), record("p", "a/0", usd=0.5))
    Path(artifact.path, "data").mkdir()
    assert artifact.begin("another") is False
    assert [path.name for path in Path(artifact.path).iterdir() if path.is_dir()] == ["replies"]
    later = Ledger(artifact)
    assert list(asyncio.run(later.replies(["p"]))) == ["p"]
    assert asyncio.run(later.totals())["usd"] == 0.5


def test_rows_that_are_written_cost_money_but_are_not_looked_up(artifact: Artifact) -> None:
    keep(Ledger(artifact), record("p", "a/0", usd=0.5), record("q", "a/0", usd=0.25))
    ledger = Ledger(artifact, done=["p"])
    assert list(asyncio.run(ledger.replies(["p", "q"]))) == ["q"]
    assert asyncio.run(ledger.totals())["usd"] == 0.75


def test_the_budget_holds_over_tries(artifact: Artifact) -> None:
    keep(Ledger(artifact), record("p", "a/0", usd=0.5))

    async def run() -> list[bool]:
        ledger = Ledger(artifact, budget_usd=1.0)
        allowed = [await ledger.reserve(0.6), await ledger.reserve(0.25)]
        await ledger.record([record("p", "a/1", usd=0.1)], 0.25)
        return [*allowed, await ledger.reserve(0.45), await ledger.reserve(0.4)]

    assert asyncio.run(run()) == [False, True, False, True]


def test_who_finds_all_money_held_waits_until_some_is_given_back_or_spent(artifact: Artifact) -> None:
    async def run() -> None:
        ledger = Ledger(artifact, budget_usd=1.0)
        assert await ledger.reserve(0.75)
        first, second, large = (asyncio.create_task(ledger.reserve(usd)) for usd in (0.5, 0.5, 1.0))
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in (first, second, large))
        await ledger.release(0.75)
        assert await first
        await ledger.release(0.0)
        assert await second  # 0.5 + 0.5
        await ledger.record([record("p", "a/0", usd=0.25)], 0.5)
        assert not await large  # 0.25 are spent for good
        assert await ledger.reserve(0.25)

    asyncio.run(run())


def test_money_is_held_until_the_reply_is_counted(artifact: Artifact) -> None:
    async def run() -> None:
        ledger = Ledger(artifact, budget_usd=1.0)
        assert await ledger.reserve(1.0)
        writing = asyncio.create_task(ledger.record([record("p", "a/0", usd=1.0)], 1.0))
        assert not await ledger.reserve(0.5)
        await writing

    asyncio.run(run())


def test_money_of_a_dead_worker_is_not_waited_for_without_end(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zephyr_ray.inference.response_cache._QUIET_S", 0.01)

    async def run() -> list[bool]:
        ledger = Ledger(artifact, budget_usd=1.0)
        return [await ledger.reserve(0.75), await ledger.reserve(0.5)]

    assert asyncio.run(run()) == [True, False]


def test_replies_of_a_worker_go_to_the_ledger_together_and_an_error_to_each_of_them() -> None:
    calls: list[tuple[list[dict[str, Any]], float]] = []

    async def write(records: list[dict[str, Any]], reserved: float) -> None:
        calls.append((records, reserved))
        if len(calls) == 2:
            raise OSError("the disk is full")

    async def run() -> None:
        link = LedgerLink(SimpleNamespace(record=SimpleNamespace(remote=write)))
        waiting = [asyncio.create_task(link.record(record("p", f"a/{number}"), 0.5)) for number in range(3)]
        await asyncio.sleep(0)
        waiting.pop().cancel()  # its reply is there and counts all the same
        await asyncio.gather(*waiting)
        failed = await asyncio.gather(
            *(link.record(record("q", key), 0.0) for key in ("a/0", "a/1")), return_exceptions=True
        )
        assert [str(each) for each in failed] == ["the disk is full"] * 2

    asyncio.run(run())
    assert [[each["key"] for each in records] for records, _ in calls] == [["a/0", "a/1", "a/2"], ["a/0", "a/1"]]
    assert [reserved for _, reserved in calls] == [1.5, 0.0]
