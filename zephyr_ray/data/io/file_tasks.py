"""Work on the files of an artifact in Ray tasks: some files to a task, and a bounded number of tasks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from zephyr_ray.cluster import connect
from zephyr_ray.errors import raised_by_user

if TYPE_CHECKING:
    import ray

MOST_TASKS = 2_000
"""Tasks over the files of one artifact; with more files each task reads several, one after the other."""

_GROUPS = 256  # tasks whose results are looked at together
_FILES = 8  # that a task has at least, where there are as many: starting one costs more than a small file
_AT_ONCE = 64  # results that are on their way to this process

Item = TypeVar("Item")


def groups(items: Sequence[Item], most: int = _GROUPS) -> list[Sequence[Item]]:
    """Items in order, in at most so many groups that are as long as one another but for one item."""
    count = min(-(-len(items) // _FILES), most)
    edges = [number * len(items) // count for number in range(count + 1)] if count else [0]
    return [items[start:end] for start, end in itertools.pairwise(edges)]


def start(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], results: int = 1) -> list[Any]:
    """Calls a function in a task for each tuple of arguments; references to what it returns stay in the object store.

    Args:
        function: What is called.
        calls: Its arguments; a reference among them is what it refers to.
        results: How many values it returns, each of which gets a reference.
    """
    import ray

    task = ray.remote(function).options(num_cpus=connect.busy_cpus(), num_returns=results, scheduling_strategy="SPREAD")
    return [task.remote(*arguments) for arguments in calls]


def results(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """What a function returns for each tuple of arguments, in order, some at a time in this process's memory. Raises as
    `get`.
    """
    references: list[ray.ObjectRef] = start(function, calls)[::-1]
    while references:
        some = [references.pop() for _ in range(min(_AT_ONCE, len(references)))]
        yield from get(some)


def get(references: Sequence[ray.ObjectRef]) -> list[Any]:
    """What tasks returned.

    Raises:
        UserError: One of them did.
    """
    import ray

    try:
        return ray.get(list(references))
    except Exception as error:
        raise raised_by_user(error) or error from None
