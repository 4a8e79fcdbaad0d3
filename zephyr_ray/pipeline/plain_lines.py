"""Shows a command's events as plain lines, one idea a line: where the output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from zephyr_ray.pipeline import progress_text
from zephyr_ray.pipeline.events import (
    Alarm,
    Event,
    Failed,
    Finished,
    Said,
    StageFinished,
    StageProgress,
    StageSkipped,
    StageStarted,
)

INTERVAL_S = 10.0
"""Between two lines on the progress of a stage."""
_PREFIXES = {2: "error: ", 1: "failed: "}


class PlainLines:
    """A view for people who read a log."""

    interval_s = 1.0

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self.console, self.clock = console, clock
        self._last: StageProgress | None = None
        self._next = 0.0

    def show(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._next = self.clock() + INTERVAL_S
        if isinstance(event, StageProgress) and not self._is_due(event):
            return
        for text in lines(event):
            self.console.print(text, style=style(event), markup=False)

    def close(self) -> None:
        """All is printed."""

    def _is_due(self, event: StageProgress) -> bool:
        """Whether there is something new, and the last line was long enough ago."""
        now = self.clock()
        if now < self._next or event.says_the_same_as(self._last):
            return False
        self._last, self._next = event, now + INTERVAL_S
        return True


def lines(event: Event) -> list[str]:
    """What a person reads of an event."""
    match event:
        case StageProgress():
            return [f"{event.stage:<22} {'  '.join(progress_text.parts(event))}"]
        case StageFinished():
            return [f"{event.stage:<22} done in {progress_text.clock(event.seconds)}"]
        case StageSkipped():
            return [f"{event.stage:<22} already done"]
    return spoken(event)


def spoken(event: Event) -> list[str]:
    """The lines of an event that is words, and of the command's end."""
    match event:
        case Said() | Alarm():
            return [event.text]
        case Failed():
            said = [f"{_PREFIXES.get(event.status, '')}{event.message}"]
            return said + ([f"log: {event.log}"] if event.log else [])
        case Finished():
            return [f"finished in {round(event.seconds)} s" + (f"; log: {event.log}" if event.log else "")]
    return []


def style(event: Event) -> str | None:
    return "red" if isinstance(event, Alarm) or (isinstance(event, Failed) and event.status != 130) else None
