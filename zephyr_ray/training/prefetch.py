"""A prefetching iterator: a thread makes the next items while those before them are used."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

_END = object()


class Prefetched(Iterator[Any]):
    """An iterator that is at most `ahead` items before its reader.

    One thread makes the items, so that nothing changes but the time at which they are made. What goes wrong there is
    raised, as it is, where the item would have been. A thread rather than processes: it needs no second copy of the
    libraries, and what it does for a step takes far less time than the step.

    Args:
        source: Is asked for its items in the thread alone.
        ahead: Items that are made before they are asked for.
    """

    def __init__(self, source: Iterator[Any], ahead: int):
        self.source = source
        # A new thread would be on the first GPU, whatever this one is on.
        gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        prepare = functools.partial(torch.cuda.set_device, gpu) if gpu is not None else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch", initializer=prepare)
        self._items: deque[Future[Any]] = deque(self._thread.submit(next, source, _END) for _ in range(ahead))

    def __next__(self) -> Any:
        """The next item.

        Raises:
            StopIteration: There is none, or the iterator is closed.
        """
        if not self._items:
            raise StopIteration
        try:
            item = self._items.popleft().result()
        except BaseException:
            self.close()
            raise
        if item is _END:
            self.close()
            raise StopIteration
        self._items.append(self._thread.submit(next, self.source, _END))
        return item

    def close(self) -> None:
        """Ends the thread. What it is making is finished and dropped."""
        self._items.clear()
        self._thread.shutdown(cancel_futures=True)
