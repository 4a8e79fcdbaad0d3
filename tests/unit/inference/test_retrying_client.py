"""One member of a pool: retries, waits, giving up, money. The server is a list of what it does next."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from zephyr_ray.config.feedback import Price
from zephyr_ray.inference import retrying_client as members
from zephyr_ray.inference.clients import Busy, Refused, Reply, Unusable
from zephyr_ray.inference.request_plan import Completion, Failure
from zephyr_ray.inference.retrying_client import RetryingClient

BODY = {"messages": [{"role": "user", "content": "1234"}], "max_tokens": 100}
REPLY = Reply("hi", "stop", 10, 20)


class Script:
    """Does what it is told, in order; then answers."""

    def __init__(self, *steps: Exception):
        self.steps, self.sent = list(steps), 0

    async def send(self, body: dict[str, Any]) -> Reply:
        self.sent += 1
        if self.steps:
            raise self.steps.pop(0)
        return REPLY


class Book:
    """A ledger, which keeps what it is told."""

    def __init__(self, allows: bool = True):
        self.allows, self.held = allows, 0.0
        self.records: list[dict[str, Any]] = []

    async def reserve(self, usd: float) -> bool:
        self.held += usd if self.allows else 0
        return self.allows

    async def release(self, usd: float) -> None:
        self.held -= usd

    async def record(self, record: dict[str, Any], reserved: float) -> None:
        self.held -= reserved
        self.records.append(record)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which take no time."""
    seen: list[float] = []

    async def sleep(seconds: float) -> None:
        seen.append(seconds)

    monkeypatch.setattr(members, "_sleep", sleep)
    return seen


def ask(server: Script, times: int = 1, **options: Any) -> list[Completion | Failure]:
    member = RetryingClient(server, **{"in_flight": 4, "retries": 2, **options})

    async def run() -> list[Completion | Failure]:
        return [await member.ask("p", {**BODY, "seed": number}, {}) for number in range(times)]

    return asyncio.run(run())


def test_what_may_pass_is_tried_again_and_what_is_refused_is_not() -> None:
    server = Script(Busy("1"), Busy("2"))
    assert ask(server) == [Completion("hi", "stop", 10)]
    assert server.sent == 3
    assert ask(Script(Busy("1"), Busy("2"), Busy("3"))) == [Failure("3", "failed")]
    server = Script(Refused("not that"))
    assert ask(server, times=2) == [Failure("not that", "refused"), Completion("hi", "stop", 10)]
    assert server.sent == 2


def test_waits_double_at_most_and_keep_to_what_the_server_says(waits: list[float]) -> None:
    ask(Script(Busy(""), Busy(""), Busy(""), Busy("")), retries=4)
    assert all(0 <= wait <= 0.5 * 2**number for number, wait in enumerate(waits, 1))
    waits.clear()
    ask(Script(Busy("", retry_after=7), Busy("", retry_after=9_000)))
    assert 7 <= waits[0] <= 7.7
    assert 120 <= waits[1] <= 132


def test_an_unusable_server_is_asked_once() -> None:
    server = Script(Unusable("wrong key"))
    first, second = ask(server, times=2)
    assert first == second == Failure("cannot be used: wrong key", "given_up")
    assert server.sent == 1


def test_a_silent_server_is_given_up() -> None:
    server = Script(*[Busy("down")] * 100)
    outcomes = ask(server, times=25, retries=0)
    assert [outcome.kind for outcome in outcomes if isinstance(outcome, Failure)] == ["failed"] * 20 + ["given_up"] * 5
    assert server.sent == members._SILENCE == 20
    # One answer in between, and it goes on.
    server = Script(*[Busy("down")] * 19)
    assert ask(server, times=25, retries=0)[19:] == [Completion("hi", "stop", 10)] * 6


def test_a_reply_is_recorded_with_what_it_cost() -> None:
    book = Book()
    ask(Script(), ledger=book, price=Price(input=1.0, output=2.0))
    (record,) = book.records
    assert record["usd"] == pytest.approx((20 * 1 + 10 * 2) / 1e6)
    assert (record["prompt_id"], record["prompt_tokens"]) == ("p", 20)
    assert record["answer"] == {"content": "hi", "finish_reason": "stop", "tokens": 10}
    assert book.held == pytest.approx(0)


def test_money_that_was_held_back_for_a_failure_is_given_back() -> None:
    book = Book()
    ask(Script(Refused("no")), ledger=book, price=Price(input=1.0, output=2.0))
    assert book.records == []
    assert book.held == pytest.approx(0)


def test_nothing_is_sent_over_the_budget() -> None:
    server = Script()
    assert ask(server, ledger=Book(allows=False), price=Price(input=1, output=1)) == [
        Failure("the budget is spent", "over_budget")
    ]
    assert server.sent == 0


def test_the_most_that_a_request_costs_is_what_is_held_back() -> None:
    book: Any = Book()
    member = RetryingClient(Script(), in_flight=1, retries=0, ledger=book, price=Price(input=1.0, output=2.0))
    # 4 bytes and the turn's 16 tokens at 1, 100 tokens at 2.
    assert member._cost_bound(BODY) == pytest.approx((4 + 16 + 200) / 1e6)


def test_a_request_that_has_a_reply_is_not_sent_and_any_other_is() -> None:
    def sent(identity: str, body: dict[str, Any], known: dict[str, Any]) -> int:
        server = Script()
        member = RetryingClient(server, in_flight=1, retries=0, identity=identity)
        answer = asyncio.run(member.ask("p", body, known))
        assert answer == Completion("hi", "stop", 10)
        return server.sent

    book: Any = Book()
    member = RetryingClient(Script(), in_flight=1, retries=0, identity="a", ledger=book)
    asyncio.run(member.ask("p", BODY, {}))
    known = {each["key"]: each["answer"] for each in book.records}
    assert sent("a", dict(reversed(BODY.items())) | {"stop": None}, known) == 0
    assert sent("b", BODY, known) == 1
    assert sent("a", BODY | {"max_tokens": 99}, known) == 1
    assert sent("a", BODY | {"messages": [{"role": "user", "content": "12345"}]}, known) == 1
