"""What the endpoint does under load: a full queue, clients that leave, a new checkpoint, a burst, a killed replica."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.load import Clients, Outcome, clients, keeping_busy, until
from tests.integration.service import Service, make_run

pytestmark = pytest.mark.timeout(600)

LONG = 400


def test_a_full_queue_answers_429(chat_service: Service) -> None:
    """A replica holds 32 requests; of 60 long ones at once some are told to come back, and none fails otherwise."""

    async def burst() -> None:
        async with clients(chat_service) as asking:
            await asyncio.gather(*(asking.ask(max_tokens=LONG) for _ in range(60)))
        outcome = asking.outcome
        assert set(outcome.statuses) == {200, 429}
        assert outcome.statuses.count(200) >= 32
        refused = [body for body in outcome.bodies if body]
        assert all(float(body["headers"]["Retry-After"]) > 0 for body in refused)
        assert all(body["error"]["type"] == "rate_limit_error" for body in refused)

    asyncio.run(burst())


def test_a_client_that_leaves_cancels_generation(chat_service: Service) -> None:
    streams = 16

    async def leave() -> None:
        async with clients(chat_service) as asking:
            body = {
                "model": "tiny",
                "messages": [{"role": "user", "content": "go on"}],
                "max_tokens": LONG,
                "ignore_eos": True,
                "stream": True,
            }
            answers = await asyncio.gather(*(asking.session.post(asking.url, json=body) for _ in range(streams)))
            await asyncio.gather(*(answer.content.readline() for answer in answers))
            for answer in answers:
                answer.close()

    def generated() -> float:
        return chat_service.metric("ray_vllm_generation_tokens_total")

    async def settled() -> None:
        await until(lambda: chat_service.metric("ray_vllm_num_requests_running") == 0, 30, "requests go on running")

    asyncio.run(settled())
    before = generated()
    asyncio.run(leave())
    asyncio.run(asyncio.sleep(3))  # metrics are reported once a second
    asyncio.run(settled())
    assert generated() - before < streams * LONG / 2


def test_metrics_are_there_for_prometheus(chat_service: Service) -> None:
    names = (
        "ray_zephyr_requests_total",
        "ray_zephyr_errors_total",
        "ray_zephyr_time_to_first_token_seconds_count",
        "ray_zephyr_time_per_token_seconds_count",
        "ray_zephyr_request_seconds_count",
        "ray_zephyr_requests_in_progress",
        "ray_vllm_num_requests_running",
        "ray_vllm_time_to_first_token_seconds_count",
        "ray_vllm_generation_tokens_total",
    )
    seen: set[str] = set()

    def all_seen() -> bool:
        seen.update(name for name in names if chat_service.metric(name) > 0)
        return seen >= set(names)

    async def ask() -> None:
        async with clients(chat_service) as asking:

            async def both() -> None:
                await asyncio.gather(asking.stream(max_tokens=LONG), asking.ask(model="tiny", n=9))

            async with keeping_busy(both, 24):
                await until(all_seen, 120, "a metric never rose above zero")

    asyncio.run(ask())


@pytest.fixture
def hasty_service(chat_service: Service) -> Iterator[Service]:
    """The service with a gateway that lets a request take one second."""
    patient = chat_service.gateway
    chat_service.gateway = {**patient, "limits": {**patient["limits"], "timeout_s": 1}}
    chat_service.deploy()
    yield chat_service
    chat_service.gateway = patient
    chat_service.deploy()


def test_a_request_that_takes_too_long_ends_and_frees_the_engine(hasty_service: Service) -> None:
    async def ask() -> None:
        async with clients(hasty_service) as asking:
            while 200 not in asking.outcome.statuses[-1:]:  # a new gateway's first requests take longer
                assert len(asking.outcome.statuses) < 30, asking.outcome.bodies[-1]
                await asking.ask(max_tokens=1)
            asking.outcome = Outcome()
            wanted = {"max_tokens": LONG, "n": 4}
            await asyncio.gather(*(each(**wanted) for each in (asking.ask, asking.stream) for _ in range(4)))
        outcome = asking.outcome
        # A stream has its first event in time, unless the machine is busy.
        assert set(outcome.statuses) == {408}, outcome.statuses
        assert all(body["error"]["type"] == "timeout_error" for body in outcome.bodies)
        assert "error" in outcome.ends, outcome.ends
        assert set(outcome.ends) == {"error"}
        gone = partial(hasty_service.metric, "ray_vllm_num_requests_running")
        await asyncio.sleep(3)  # metrics are reported once a second
        await until(lambda: gone() == 0, 20, "requests go on running")

    asyncio.run(ask())


def test_a_new_checkpoint_drops_no_request(chat_service: Service, other_model: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "next", other_model)

    async def swap() -> tuple[list[str], list[object]]:
        async with clients(chat_service) as asking:

            async def both() -> None:
                await asyncio.gather(asking.ask(), asking.stream())
                await asyncio.sleep(0.2)  # without a pause, the new engine starts at half the speed

            async with keeping_busy(both, 2):
                await until(lambda: bool(asking.outcome.fingerprints), 60, "no answer came")
                before = set(asking.outcome.fingerprints)
                assert len(before) == 1
                await asyncio.to_thread(chat_service.deploy, run=str(run), adapters={}, min_replicas=0, max_replicas=2)
                await until(lambda: asking.outcome.fingerprints[-1] not in before, 120, "the old checkpoint answers")
                await asyncio.sleep(2)
        assert asking.outcome.ends
        return asking.outcome.fingerprints, asking.outcome.failed

    fingerprints, failed = asyncio.run(swap())
    assert failed == []
    assert len(set(fingerprints)) == 2
    # Once the new one has taken over it stays: the old replica is gone.
    first_of_new = fingerprints.index(fingerprints[-1])
    assert fingerprints[-5:] == [fingerprints[-1]] * 5
    assert first_of_new > 1


def test_replicas_come_with_a_burst_and_survive_a_kill(chat_service: Service) -> None:
    """Needs the service as the test above leaves it: at most two replicas."""
    assert len(chat_service.replicas()) < 2

    async def kill_one_of_two(asking: Clients) -> None:
        await until(lambda: len(chat_service.replicas()) == 2, 150, "no second replica came")
        await asyncio.sleep(2)
        asking.outcome.ends.clear()
        # The one that answers for long: what a new one has not begun to answer goes to another replica.
        victim = min(chat_service.replicas(), key=lambda replica: replica["start_time_s"])
        os.kill(victim["pid"], signal.SIGKILL)
        await asyncio.sleep(5)

    async def burst() -> None:
        async with clients(chat_service) as asking:
            # In one loop each, so that each replica gets some of both kinds. Of different lengths, so that there are
            # streams in progress at any time.
            whole = keeping_busy(lambda: asking.ask(max_tokens=random.randint(LONG // 2, LONG)), 2)
            streams = keeping_busy(lambda: asking.stream(max_tokens=random.randint(LONG // 2, LONG)), 6)
            async with whole, streams:
                for _ in range(3):  # whether a replica has a stream in progress just then is up to the router
                    await kill_one_of_two(asking)
                    if "error" in asking.outcome.ends:
                        break
        assert asking.outcome.failed == [], asking.outcome.failed[:3]
        # A killed replica had streams in progress, and each of those was told so.
        assert "error" in asking.outcome.ends, asking.outcome.ends
        assert "done" in asking.outcome.ends

    asyncio.run(burst())


def test_without_requests_no_replica_stays_and_the_next_request_brings_one(chat_service: Service) -> None:
    """Needs the service as the tests above leave it: with no replica at least."""
    assert chat_service.model["min_replicas"] == 0

    async def wake() -> None:
        await until(lambda: chat_service.replicas() == [], 180, "the last replica stayed")
        async with clients(chat_service) as asking:
            await asyncio.gather(asking.ask(), asking.stream())
        assert asking.outcome.statuses == [200]
        assert asking.outcome.ends == ["done"]

    asyncio.run(wake())
