"""Terminal display of running stages: progress with rate and time left, metrics, and messages."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from zephyr_ray.pipeline.pace import Pace
from zephyr_ray.pipeline.progress import Progress, start_board

_PLAIN_INTERVAL_S = 10.0  # between two lines if the output is not a terminal


def on_terminal(log_path: str) -> Screen:
    """A screen on this process's stdout. From now on stdout and stderr go to the log file, together with everything
    that Ray forwards from its workers."""
    os.makedirs(os.path.dirname(log_path), exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return Screen(Console(file=stdout, highlight=False, soft_wrap=True))


class Screen:
    """Shows which stage runs and its progress: redrawn in place on a terminal, otherwise a line now and then."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._planned: list[str] = []
        self._board: Any = None  # shared by all stages, because each board costs a worker

    def plan(self, stages: Sequence[str]) -> None:
        """Sets the stages that this command brings up to date, in order."""
        self._planned = list(stages)

    def say(self, text: str = "", style: str | None = None) -> None:
        self.console.print(text, style=style, markup=False)

    @contextlib.contextmanager
    def stage(self, name: str, unit: str) -> Iterator[Progress]:
        """Shows a stage's progress while its body runs."""
        self._board = self._board or start_board()
        progress = Progress(self._board, name)
        stop = threading.Event()
        show = self._draw if self.console.is_terminal else self._print_lines
        started = time.monotonic()
        watcher = threading.Thread(target=show, args=(name, unit, progress, stop), daemon=True)
        watcher.start()
        try:
            yield progress
        finally:
            stop.set()
            watcher.join()
        self.say(f"{name:<22} done in {_clock(time.monotonic() - started)}")

    def _draw(self, name: str, unit: str, progress: Progress, stop: threading.Event) -> None:
        """Redraws the running stage and those after it until it is done."""
        started = time.monotonic()
        # Without these options Live would show printed text above the table; it belongs in the log.
        live = Live(
            console=self.console, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        with live:
            live.update(self._table(name, "starting", None, 0.0), refresh=True)
            for line, state in self._states(unit, progress, stop, interval=0.5):
                live.update(self._table(name, line, state, time.monotonic() - started), refresh=True)

    def _table(self, name: str, line: str, state: dict[str, Any] | None, elapsed: float) -> Table:
        """A row for the running stage, with a bar if its total is known, and one for each later stage."""
        table = Table.grid(padding=(0, 2))
        known = state is not None and bool(state["total"])
        bar = ProgressBar(total=state["total"], completed=state["done"], width=24) if state and known else Text("")
        table.add_row(f"{name:<22}", bar, Text(line), _clock(elapsed))
        later = self._planned[self._planned.index(name) + 1 :] if name in self._planned else []
        for other in later:
            table.add_row(Text(other, style="dim"), Text(""), Text("to do", style="dim"), "")
        return table

    def _print_lines(self, name: str, unit: str, progress: Progress, stop: threading.Event) -> None:
        """Prints a line where there is something new."""
        last = None
        for line, state in self._states(unit, progress, stop, interval=_PLAIN_INTERVAL_S):
            if state != last:
                self.say(f"{name:<22} {line}")
                last = state

    def _states(
        self, unit: str, progress: Progress, stop: threading.Event, interval: float
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        from ray.exceptions import RayError

        pace = Pace()
        while not stop.wait(interval):
            try:
                state = progress.read()
            except RayError:  # the cluster is shutting down; the stage itself reports why
                return
            now = time.monotonic()
            pace.see(state["done"], now)
            yield _progress_line(state, unit, pace, now), state


def _progress_line(state: dict[str, Any], unit: str, pace: Pace, now: float) -> str:
    done, total = state["done"], state["total"]
    if not done:
        return "starting"
    parts = [f"{done:,}/{total:,} {unit}" if total else f"{done:,} {unit}"]
    if pace.rate is not None:
        parts.append(f"{pace.rate:,.1f}/s")
    left = pace.left_s(total, now) if total else None
    if left is not None:
        parts.append(f"{_clock(left)} left")
    parts += [f"{key} {_number(value)}" for key, value in state["metrics"].items()]
    return "  ".join(parts)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
