"""Tells how a run gets on: what happens, and how far the stage that runs is, to views for people and programs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rich.console import Console

from zephyr_ray.pipeline import live_table, streams
from zephyr_ray.pipeline.event_lines import EventLines
from zephyr_ray.pipeline.events import Event, Said, StageFinished, StageProgress, StageSkipped, StageStarted
from zephyr_ray.pipeline.live_table import LiveTable
from zephyr_ray.pipeline.pace import Pace
from zephyr_ray.pipeline.plain_lines import PlainLines
from zephyr_ray.pipeline.progress import Progress, start_board


class View(Protocol):
    """Shows events somewhere."""

    @property
    def interval_s(self) -> float:
        """How often it wants to hear of progress."""

    def show(self, event: Event) -> None:
        """Shows an event, at once."""

    def close(self) -> None:
        """Ends; what is said later is shown in plain lines."""


def on_stdout() -> Screen:
    """Plain lines on stdout."""
    return Screen([PlainLines(_console())])


def of_command(log_path: str, events: EventLines | None = None) -> Screen:
    """The screen of a command. From now on its stdout and stderr go to the log file, together with everything that Ray
    forwards from its workers.

    Args:
        log_path: The log file.
        events: Where the events go besides; people then read plain lines on stderr, and else on stdout the live table
            or, where that is no terminal, plain lines.
    """
    stdout, stderr = streams.to_log(log_path)
    if events is not None:
        return Screen([events, PlainLines(_console(stderr))])
    console = _console(stdout)
    return Screen([LiveTable(console) if live_table.suits(console) else PlainLines(console)])


def _console(file: Any = None) -> Console:
    return Console(file=file, highlight=False, soft_wrap=True)


class Screen:
    """Passes what happens on to views, and watches the stage that runs."""

    def __init__(self, views: Sequence[View]):
        self.views = views
        self._stage: str | None = None
        self._board: Any = None  # shared by all stages, because each board costs a worker
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        """Shows an event; one that names no stage is about the one that runs."""
        with self._lock:
            if isinstance(event, StageStarted):
                self._stage = event.stage
            stamped = event.model_copy(update={"stage": event.stage or self._stage})
            if isinstance(event, StageFinished | StageSkipped):
                self._stage = None
            for view in self.views:
                view.show(stamped)

    def say(self, text: str) -> None:
        """Shows a line."""
        self.tell(Said(text=text))

    def close(self) -> None:
        for view in self.views:
            view.close()

    @contextlib.contextmanager
    def watched(self, name: str, unit: str) -> Iterator[Progress]:
        """Shows a stage's progress while its body runs, a few times a second at most whatever it reports."""
        self._board = self._board or start_board()
        progress, pace, stop = Progress(self._board, name), Pace(), threading.Event()
        interval = min(view.interval_s for view in self.views)

        def watch() -> None:
            from ray.exceptions import RayError

            with contextlib.suppress(RayError):  # the cluster is shutting down; the stage itself reports why
                while not stop.wait(interval):
                    self.tell(_event(name, unit, progress.read(), pace))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield progress
        finally:
            stop.set()
            watcher.join()
        self.tell(_event(name, unit, progress.read(), pace))


def _event(name: str, unit: str, state: dict[str, Any], pace: Pace) -> StageProgress:
    """What a board holds of a stage, with its pace."""
    done, total, now = state["done"], state["total"], time.monotonic()
    pace.see(done, now)
    left = pace.left_s(total, now) if total else None
    metrics = state["metrics"]
    return StageProgress(
        stage=name, rows=done, total=total, unit=unit, rate=pace.rate, seconds_left=left, metrics=metrics
    )
