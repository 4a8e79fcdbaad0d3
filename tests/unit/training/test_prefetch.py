"""Steps prepared in a thread: the same ones in the same order, while those before them run, and nothing left behind."""

import threading
from collections.abc import Iterator

import pytest

from zephyr_ray.training.prefetch import Prefetched

LONGEST = 60
"""Seconds after which a test that hangs fails."""


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_the_same_items_in_the_same_order() -> None:
    assert list(Prefetched(iter(range(7)), 2)) == list(range(7))
    assert list(Prefetched(iter([]), 2)) == []
    assert not prefetching()


def test_items_are_made_while_those_before_are_used_and_no_further_ahead() -> None:
    made = [threading.Event() for _ in range(6)]
    here = threading.current_thread()

    def source() -> Iterator[int]:
        for number, event in enumerate(made):
            assert threading.current_thread() is not here
            event.set()
            yield number

    items = Prefetched(source(), 2)
    for number in range(6):
        assert next(items) == number
        for later in made[number + 1 : number + 3]:
            assert later.wait(LONGEST)
        assert not any(event.is_set() for event in made[number + 3 :])
    items.close()


def test_an_error_is_raised_as_it_is_where_its_item_would_be() -> None:
    error = KeyError("row 2")

    def source() -> Iterator[int]:
        yield 0
        yield 1
        raise error

    items = Prefetched(source(), 2)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(KeyError) as raised:
        next(items)
    assert raised.value is error
    assert not prefetching()
    with pytest.raises(StopIteration):
        next(items)


def test_closing_waits_for_what_is_being_made_and_makes_no_more() -> None:
    begun, going_on, made = threading.Event(), threading.Event(), []

    def source() -> Iterator[int]:
        for number in range(9):
            begun.set()
            assert going_on.wait(LONGEST)
            made.append(number)
            yield number

    items = Prefetched(source(), 2)
    assert begun.wait(LONGEST)
    closing = threading.Thread(target=items.close)
    closing.start()
    assert closing.is_alive()
    going_on.set()
    closing.join(LONGEST)
    assert (closing.is_alive(), made, prefetching()) == (False, [0], [])
