"""Shows a command's events on a terminal: a table of all stages, redrawn in place, with what is said above it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from zephyr_ray.pipeline import plain_lines, stage_table
from zephyr_ray.pipeline.events import Event, Failed, Finished, Planned, StageFinished, StageSkipped

_SMALLEST = (20, 4)
_USUAL = (80, 24)  # where the terminal does not know its own size
_KEPT = 200  # lines that were said, for a terminal that is made narrower


def suits(console: Console) -> bool:
    """Whether a table can be redrawn there: it is a terminal that can move its cursor, and a person looks at it."""
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return console.file.isatty() and console.is_interactive and bool(os.environ.get("TERM")) and not in_ci


class LiveTable:
    """A view for people at a terminal. After the last stage, or an error, the table stays as it is."""

    interval_s = 0.25

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self.console, self.clock = console, clock
        self._rows: tuple[stage_table.Row, ...] = ()
        self._settled = 0
        self._heading: Event | None = None
        self._said: deque[Text] = deque(maxlen=_KEPT)
        self._drawn: tuple[Any, ...] = ()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        # Without these options Live would show what libraries print above the table; it belongs in the log.
        self._live = Live(
            console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, vertical_overflow="crop"
        )

    def show(self, event: Event) -> None:
        with self._lock:
            self._rows = stage_table.after(self._rows, event, self.clock())
            if isinstance(event, Planned):
                self._begin()
            self._settled += isinstance(event, StageFinished | StageSkipped)
            if isinstance(event, Failed | Finished) or (self._rows and self._settled >= len(self._rows)):
                self.close()
            if isinstance(event, StageFinished | StageSkipped):
                self._heading = event
            if spoken := plain_lines.spoken(event):
                self._say([*self._heading_of(event), *spoken], plain_lines.style(event))

    def close(self) -> None:
        """Leaves the whole table, and the terminal as it was."""
        self._ended.set()
        with self._lock:
            if self._live.is_started:
                self.redraw(whole=True)
                self._live.stop()

    def _begin(self) -> None:
        self._fit()
        self._live.start()
        self.redraw()
        threading.Thread(target=self._keep_drawing, daemon=True).start()

    def _keep_drawing(self) -> None:
        """Keeps the clocks of the table going, and its size that of the terminal."""
        while not self._ended.wait(self.interval_s):
            with self._lock:
                if not self._ended.is_set():
                    self.redraw()

    def redraw(self, whole: bool = False) -> None:
        """Redraws the table if it looks different now; `whole` where it may be longer than the terminal."""
        before = self.console.width
        self._fit()
        width, height = self.console.size
        table = stage_table.lines(self._rows, self.clock(), width - 1, None if whole else height - 1)
        if self._drawn != (now := (width, height, *table)):
            if width < before:
                self._clear(height - len(table) - 1)
            self._live.update(Group(*table), refresh=True)
            self._drawn = now

    def _say(self, lines: list[str], style: str | None) -> None:
        for line in lines:
            self._said.append(Text(line, style or ""))
            self.console.print(self._said[-1])

    def _heading_of(self, event: Event) -> list[str]:
        """What goes before the first line about a stage that has ended, which else does not say whose it is."""
        if self._heading is None or self._heading.stage != event.stage:
            return []
        heading, self._heading = self._heading, None
        return plain_lines.lines(heading)

    def _clear(self, room: int) -> None:
        """Clears a terminal that became narrower, where it may have broken the lines of the table in two, and prints
        the last lines again."""
        kept: list[Text] = []
        for line in reversed(self._said):
            room -= max(1, -(-line.cell_len // self.console.width))
            if room < 0:
                break
            kept.insert(0, line)
        with self.console:
            self.console.clear()
            if kept:
                self.console.print(Text("\n").join(kept))

    def _fit(self) -> None:
        """Takes the terminal's size of now: the console itself would ask the streams that go to the log."""
        try:
            size = os.get_terminal_size(self.console.file.fileno())
        except OSError:  # the terminal is gone
            return
        width, height = size if all(size) else _USUAL
        self.console.size = max(width, _SMALLEST[0]), max(height, _SMALLEST[1])
