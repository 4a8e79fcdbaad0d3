"""The bound on open requests, on one event loop."""

import asyncio

from zephyr_ray.inference.concurrency import AdaptiveLimit


def test_no_more_are_open_than_the_limit_and_all_get_their_turn() -> None:
    open_now = most = 0

    async def request(limit: AdaptiveLimit) -> None:
        nonlocal open_now, most
        async with limit:
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0)
            open_now -= 1

    async def run() -> None:
        limit = AdaptiveLimit(3)
        await asyncio.gather(*(request(limit) for _ in range(20)))

    asyncio.run(run())
    assert (most, open_now) == (3, 0)


def test_half_as_many_after_a_refusal_and_one_more_for_each_round_of_answers() -> None:
    async def run() -> list[int]:
        limit, seen = AdaptiveLimit(8), []
        limit.slow_down(asked_at=0.0)
        seen.append(limit.limit)
        limit.slow_down(asked_at=0.0)  # sent before the cut: says nothing about the new limit
        seen.append(limit.limit)
        for _ in range(5):
            limit.speed_up()
        seen.append(limit.limit)
        for _ in range(100):
            limit.speed_up()
        seen.append(limit.limit)
        now = asyncio.get_running_loop().time() + 1
        for _ in range(9):
            limit.slow_down(asked_at=now)
        return [*seen, limit.limit]

    assert asyncio.run(run()) == [4, 4, 5, 8, 1]


def test_a_request_that_is_cancelled_while_it_waits_leaves_its_place() -> None:
    async def run() -> None:
        limit = AdaptiveLimit(1)
        await limit.__aenter__()
        waiting = asyncio.create_task(limit.__aenter__())
        also = asyncio.create_task(limit.__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        await limit.__aexit__(None, None, None)
        await asyncio.wait_for(also, 1)
        await limit.__aexit__(None, None, None)
        await asyncio.wait_for(limit.__aenter__(), 1)

    asyncio.run(run())
