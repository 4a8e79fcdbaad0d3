"""Writes a command's events as JSON, an object a line: what `--json` prints."""

from __future__ import annotations

import sys
from typing import TextIO

from zephyr_ray.pipeline.events import Event, StageProgress


class EventLines:
    """A view for programs. In ASCII, so that it is safe on a terminal too."""

    interval_s = 1.0

    def __init__(self, out: TextIO):
        self._out: TextIO | None = out
        self.run: str | None = None
        """The run's root, once it is known."""
        self._last: StageProgress | None = None

    def show(self, event: Event) -> None:
        if isinstance(event, StageProgress):
            if event.says_the_same_as(self._last):
                return
            self._last = event
        if self._out is not None:
            named = event.model_copy(update={"run": self.run})
            self._write(self._out, named.model_dump_json(ensure_ascii=True) + "\n")

    def close(self) -> None:
        """All is written: each line is at once."""

    def _write(self, out: TextIO, line: str) -> None:
        try:
            out.write(line)
            out.flush()
        except BrokenPipeError:  # who read it has gone; what the run has cost so far is not thrown away for that
            self._out = None
            print("nobody reads the events any more; the run goes on", file=sys.stderr, flush=True)
