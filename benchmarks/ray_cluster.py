"""Starts Ray in a benchmark's process as the project's commands start it: workers are forked, with modules loaded."""

from __future__ import annotations

import atexit
import contextlib
from typing import Any

from zephyr_ray.cluster.preload import ROWS, Preload


def start_ray(preload: Preload = ROWS, **options: Any) -> None:
    """Starts a cluster on this machine; it ends with the process.

    Args:
        preload: What its workers have loaded, as the stage that is measured says.
        options: Further arguments of `ray.init`.
    """
    from zephyr_ray.cluster import connect

    stack = contextlib.ExitStack()
    stack.enter_context(connect.started(preload, log_to_driver=False, configure_logging=False, **options))
    atexit.register(stack.close)

    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
