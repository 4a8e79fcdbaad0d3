"""What a person sees: stages, progress with rate and time left, metrics, the result. All else goes to a log file.

`Terminal` sends this process's stdout and stderr (and with them what Ray forwards from its workers) to the log file and
keeps the person's screen for itself. `Progress` is a handle that any Ray task or worker can report through.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from zephyr_ray import cluster

_PLAIN_INTERVAL_S = 10.0  # between two lines where the screen is a file


class _Board:
    """Holds how far each stage is."""

    def __init__(self) -> None:
        self.stages: defaultdict[str, dict[str, Any]] = defaultdict(
            lambda: {"done": 0, "total": None, "metrics": {}, "failure": None}
        )

    def add(self, stage: str, rows: int) -> None:
        self.stages[stage]["done"] += rows

    def set(self, stage: str, done: int, total: int | None, metrics: dict[str, float] | None) -> None:
        self.stages[stage]["done"] = done
        if total is not None:
            self.stages[stage]["total"] = total
        if metrics is not None:
            self.stages[stage]["metrics"] = metrics

    def show(self, stage: str, metrics: dict[str, float]) -> None:
        self.stages[stage]["metrics"] = metrics

    def fail(self, stage: str, message: str) -> None:
        self.stages[stage]["failure"] = self.stages[stage]["failure"] or message

    def read(self, stage: str) -> dict[str, Any]:
        return self.stages[stage]


def _start_board() -> Any:
    """On the command's own machine, so that the loss of another one loses nothing that was reported."""
    import ray

    here = cluster.this_node()
    return ray.remote(_Board).options(num_cpus=0, max_concurrency=4, scheduling_strategy=here).remote()


@dataclass(frozen=True)
class Progress:
    """A handle for reporting on a stage from anywhere in the cluster; reports do not wait for an answer."""

    board: Any
    stage: str

    def add(self, rows: int) -> None:
        self.board.add.remote(self.stage, rows)

    def set(self, done: int, total: int | None = None, metrics: dict[str, float] | None = None) -> None:
        self.board.set.remote(self.stage, done, total, metrics)

    def show(self, metrics: dict[str, float]) -> None:
        """Numbers beside the count of what is done."""
        self.board.show.remote(self.stage, metrics)

    def fail(self, message: str) -> None:
        """Leaves a line for the person, which the stage reads at its end; waits until it has arrived."""
        import ray

        ray.get(self.board.fail.remote(self.stage, message))

    def read(self) -> dict[str, Any]:
        import ray

        return ray.get(self.board.read.remote(self.stage))


class Terminal:
    """The person's screen and the log file of one command."""

    def __init__(self, log_path: str):
        self.log_path = log_path
        os.makedirs(os.path.dirname(log_path), exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        screen = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        self._planned: list[str] = []
        self._board: Any = None  # one for all stages: each would cost a worker
        self.console = Console(file=screen, highlight=False, soft_wrap=True)

    def plan(self, stages: Sequence[str]) -> None:
        """The stages that this command brings up to date, in order."""
        self._planned = list(stages)

    def say(self, text: str = "", style: str | None = None) -> None:
        self.console.print(text, style=style, markup=False)

    @contextlib.contextmanager
    def stage(self, name: str, unit: str) -> Iterator[Progress]:
        """Shows a stage's progress while its body runs."""
        self._board = self._board or _start_board()
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
        """The running stage and those after it, drawn anew until it is done."""
        started = time.monotonic()
        # What is printed belongs in the log: Live would put it on the screen, above the table.
        live = Live(
            console=self.console, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        with live:
            live.update(self._way(name, "starting", None, 0.0), refresh=True)
            for line, state in self._states(unit, progress, stop, interval=0.5):
                live.update(self._way(name, line, state, time.monotonic() - started), refresh=True)

    def _way(self, name: str, line: str, state: dict[str, Any] | None, elapsed: float) -> Table:
        """A row for the running stage, with a bar where its end is known, and one for each stage to come."""
        table = Table.grid(padding=(0, 2))
        known = state is not None and bool(state["total"])
        bar = ProgressBar(total=state["total"], completed=state["done"], width=24) if state and known else Text("")
        table.add_row(f"{name:<22}", bar, Text(line), _clock(elapsed))
        later = self._planned[self._planned.index(name) + 1 :] if name in self._planned else []
        for other in later:
            table.add_row(Text(other, style="dim"), Text(""), Text("to do", style="dim"), "")
        return table

    def _print_lines(self, name: str, unit: str, progress: Progress, stop: threading.Event) -> None:
        last = ""
        for line, _ in self._states(unit, progress, stop, interval=_PLAIN_INTERVAL_S):
            if line != last:
                self.say(f"{name:<22} {line}")
                last = line

    def _states(
        self, unit: str, progress: Progress, stop: threading.Event, interval: float
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        from ray.exceptions import RayError

        first: tuple[float, int] | None = None
        while not stop.wait(interval):
            try:
                state = progress.read()
            except RayError:  # the cluster is going away; the stage itself reports why
                return
            if first is None and state["done"]:
                first = (time.monotonic(), state["done"])
            yield _progress_line(state, unit, first), state


def _progress_line(state: dict[str, Any], unit: str, first: tuple[float, int] | None) -> str:
    done, total = state["done"], state["total"]
    if not done:
        return "starting"
    parts = [f"{done:,}/{total:,} {unit}" if total else f"{done:,} {unit}"]
    elapsed = time.monotonic() - first[0] if first else 0.0
    if first and elapsed > 0 and done > first[1]:
        rate = (done - first[1]) / elapsed
        parts.append(f"{rate:,.1f}/s")
        if total:
            parts.append(f"{_clock((total - done) / rate)} left")
    parts += [f"{key} {_number(value)}" for key, value in state["metrics"].items()]
    return "  ".join(parts)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
