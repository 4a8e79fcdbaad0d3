"""Replies on disk: found again after a kill, counted once, never above the budget."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
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


def test_gathered_and_new_replies_to_a_row_are_found_together(artifact: Artifact) -> None:
    keep(Ledger(artifact), record("p", "a/0", usd=0.5), record("q", "a/0", usd=0.25))
    ledger = Ledger(artifact)
    keep(ledger, record("p", "a/1", usd=0.125))
    assert {prompt: sorted(found) for prompt, found in asyncio.run(ledger.replies(["p", "q", "p"])).items()} == {
        "p": ["a/0", "a/1"],
        "q": ["a/0"],
    }
    assert asyncio.run(ledger.totals())["usd"] == 0.875
    assert asyncio.run(Ledger(artifact).totals())["usd"] == 0.875


def test_a_reply_whose_file_another_driver_gathered_is_not_found_but_counts(artifact: Artifact) -> None:
    ledger = Ledger(artifact)
    keep(ledger, record("p", "a/0", usd=0.5))
    other = Ledger(artifact)
    assert asyncio.run(ledger.replies(["p"])) == {}
    assert list(asyncio.run(other.replies(["p"]))) == ["p"]
    keep(ledger, record("p", "a/1", usd=0.25))
    assert asyncio.run(ledger.totals()) == asyncio.run(Ledger(artifact).totals())


def test_a_driver_finds_what_one_of_a_higher_epoch_wrote_and_leaves_it_there(artifact: Artifact) -> None:
    artifact.run.epoch = 2
    keep(Ledger(artifact), record("p", "a/0", usd=0.5))
    artifact.run.epoch = 1
    ledger = Ledger(artifact)
    assert list(asyncio.run(ledger.replies(["p"]))) == ["p"]
    assert asyncio.run(ledger.totals())["usd"] == 0.5
    assert [path.name[:7] for path in Path(artifact.path, "replies").iterdir()] == ["000002-"]


STRANGE = [
    {"tokens": "5"},
    {"tokens": -7, "content": "half of a pair \ud83d"},
    {"tokens": None, "content": 7},
    {},
]


def test_strange_replies_are_recorded_and_found_and_do_not_lower_the_totals(artifact: Artifact) -> None:
    records = [{"prompt_id": "p", "key": str(number), "answer": answer} for number, answer in enumerate(STRANGE)]
    priced = [
        {**each, "prompt_tokens": -10_000_000, "usd": usd}
        for each, usd in zip(records, (-99, "1", None, 0.5), strict=True)
    ]
    for ledger in (Ledger(artifact), Ledger(artifact)):
        if not asyncio.run(ledger.replies(["p"])):
            keep(ledger, *priced)
        assert asyncio.run(ledger.replies(["p"])) == {"p": {each["key"]: each["answer"] for each in records}}
        assert asyncio.run(ledger.totals()) == {"requests": 4, "prompt_tokens": 0, "tokens": 0, "usd": 0.5}


@pytest.mark.parametrize("error", [OSError("the disk is full"), ValueError("a bug"), asyncio.CancelledError()])
def test_everyone_who_waits_is_told_whatever_goes_wrong(artifact: Artifact, error: BaseException) -> None:
    async def run() -> list[Any]:
        ledger = Ledger(artifact)

        def fail(_: Any) -> Any:
            raise error

        write, ledger._write = ledger._write, fail  # type: ignore[assignment]
        waiting = (ledger.record([record("p", key)], 0.0) for key in "abc")
        failed = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        ledger._write = write
        await ledger.record([record("q", "a")], 0.0)
        return failed

    failed = asyncio.run(run())
    assert [type(each) for each in failed] == [
        RuntimeError if isinstance(error, asyncio.CancelledError) else type(error)
    ] * 3
    assert asyncio.run(Ledger(artifact).totals())["requests"] == 1


def test_a_written_reply_counts_even_if_it_cannot_be_indexed(
    artifact: Artifact, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    ledger = Ledger(artifact)
    monkeypatch.setattr(ledger._index, "add", fail)
    keep(ledger, record("p", "a/0", usd=0.5))
    assert "1 replies are written, but not found before the next start: disk I/O error" in caplog.text
    assert asyncio.run(ledger.totals())["usd"] == 0.5
    assert list(asyncio.run(Ledger(artifact).replies(["p"]))) == ["p"]


def test_a_record_that_could_not_be_looked_up_is_refused_before_it_is_written(artifact: Artifact) -> None:
    ledger = Ledger(artifact)
    with pytest.raises(ValueError, match="lacks its prompt_id, key or answer"):
        keep(ledger, {"prompt_id": "p", "answer": {}})
    assert not Path(artifact.path, "replies").exists()


def test_look_ups_do_not_wait_for_a_write(artifact: Artifact) -> None:
    keep(Ledger(artifact), record("p", "a/0"))

    async def run() -> None:
        ledger, go_on = Ledger(artifact), threading.Event()
        write = ledger._write

        def slow(lines: Any) -> Any:
            assert go_on.wait(10)
            return write(lines)

        ledger._write = slow  # type: ignore[assignment]
        writing = [asyncio.create_task(ledger.record([record("q", key)], 0.0)) for key in "abc"]
        await asyncio.sleep(0.01)
        assert list(await asyncio.wait_for(ledger.replies(["p"]), 5)) == ["p"]
        assert not any(task.done() for task in writing)
        go_on.set()
        await asyncio.gather(*writing)
        assert sorted((await ledger.replies(["q"]))["q"]) == ["a", "b", "c"]

    asyncio.run(run())


def test_replies_are_on_the_disk_when_they_count(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait together are flushed together."""
    flushed: list[int] = []
    sync = os.fsync

    def counted(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    ledger = Ledger(artifact)
    monkeypatch.setattr(os, "fsync", counted)
    keep(ledger, *(record("p", str(number)) for number in range(100)))
    (path,) = Path(artifact.path, "replies").iterdir()
    assert flushed[-1] == path.stat().st_size
    assert len(flushed) < 10


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
