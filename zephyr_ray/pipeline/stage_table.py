"""The table of a run's stages as lines of text: what became of each, for a terminal of any width and height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.text import Text

from zephyr_ray.pipeline import progress_text
from zephyr_ray.pipeline.events import Event, Failed, Planned, StageFinished, StageProgress, StageSkipped, StageStarted

State = Literal["done earlier", "waiting", "running", "done", "failed", "interrupted"]

_STYLES: dict[State, str] = {
    "done earlier": "dim",
    "waiting": "dim",
    "running": "bold",
    "done": "green",
    "failed": "red",
    "interrupted": "yellow",
}
_STATE_WIDTH = max(map(len, _STYLES))
_LEAST_ROOM = 28  # of columns beside name and state; with fewer, what there is to say goes below them
_BAR, _BAR_FROM = 20, 74  # columns of a bar, and the room from which on there is one
_GAP = 2


@dataclass(frozen=True)
class Row:
    """A stage in the table."""

    name: str
    state: State
    progress: StageProgress | None = None
    """The last that was heard of it."""
    started: float = 0.0
    """When it began, in seconds of the clock that `lines` is given."""
    seconds: float | None = None
    """How long it took, once it has ended."""
    finished: StageFinished | None = None


def after(rows: Sequence[Row], event: Event, now: float) -> tuple[Row, ...]:
    """The table after an event.

    Args:
        rows: Before it.
        event: What happened.
        now: In seconds.
    """
    match event:
        case Planned():
            return tuple(
                Row(each.name, "done earlier" if each.status == "done" else "waiting") for each in event.stages
            )
        case Failed():
            state: State = "interrupted" if event.status == 130 else "failed"
            return tuple(
                replace(row, state=state, seconds=now - row.started) if row.state == "running" else row for row in rows
            )
    return tuple(_row_after(row, event, now) if row.name == event.stage else row for row in rows)


def _row_after(row: Row, event: Event, now: float) -> Row:
    match event:
        case StageStarted():
            return Row(row.name, "running", started=now)
        case StageProgress():
            return replace(row, progress=event)
        case StageFinished():
            return replace(row, state="done", seconds=event.seconds, finished=event)
        case StageSkipped():
            return replace(row, state="done earlier")
    return row


def lines(rows: Sequence[Row], now: float, width: int, height: int | None = None) -> list[Text]:
    """The table.

    Args:
        rows: The stages, in order.
        now: In seconds.
        width: Columns that a line may have.
        height: Lines that there may be: stages far from the one that runs are counted in a line if they are too many.
            None: any number.
    """
    names = max((len(row.name) for row in rows), default=0)
    blocks = [_block(row, now, names, width) for row in rows]
    first, last = _shown(blocks, _current(rows), height)
    before, behind = _counted(first, "before"), _counted(len(rows) - last, "after")
    return [*before, *(line for block in blocks[first:last] for line in block), *behind]


def _block(row: Row, now: float, names: int, width: int) -> list[Text]:
    """The lines of a stage: its name and state, and beside or below them what there is to say."""
    head = Text(f"{row.name:<{names}}  ") + Text(f"{row.state:<{_STATE_WIDTH}}", _STYLES[row.state])
    room = width - head.cell_len - _GAP
    if room < _LEAST_ROOM:
        details = _flowed(_details(row, now, width), width - _GAP)
        head.truncate(width, overflow="ellipsis")
        return [head, *(Text(" " * _GAP) + line for line in details)]
    details = _flowed(_details(row, now, room), room) or [Text()]
    indents = [head + Text(" " * _GAP), *[Text(" " * (head.cell_len + _GAP))] * (len(details) - 1)]
    return [indent + line for indent, line in zip(indents, details, strict=True)]


def _details(row: Row, now: float, room: int) -> list[Text]:
    """How long it has run or took, and its progress."""
    if row.state in ("waiting", "done earlier"):
        return []
    found = [Text(progress_text.clock(now - row.started if row.seconds is None else row.seconds))]
    if row.state == "running":
        bar = [_bar(row.progress)] if row.progress is not None and row.progress.total and room >= _BAR_FROM else []
        said = progress_text.parts(row.progress) if row.progress is not None else ["starting"]
        return found + bar + [Text(each) for each in said]
    return found + [Text(each) for each in _outcome(row)]


def _outcome(row: Row) -> list[str]:
    """What there is to say of a stage that has ended: rows, rows left out, the last metrics."""
    progress, finished = row.progress, row.finished
    found = [progress_text.counted(progress)] if progress is not None and progress.rows else []
    if finished is not None and "out" in finished.counts:
        dropped = sum(finished.dropped.values())
        found = [f"{finished.counts['out']:,} rows", *([f"{dropped:,} dropped"] if dropped else [])]
    return found + (progress_text.metrics(progress, ended=True) if progress is not None else [])


def _bar(progress: StageProgress) -> Text:
    done = min(_BAR, _BAR * progress.rows // max(progress.total or 0, 1))
    return Text("━" * done, "green") + Text("─" * (_BAR - done), "dim")


def _flowed(parts: Sequence[Text], width: int) -> list[Text]:
    """The parts side by side, in as many lines as it takes; one that is wider than a line is cut."""
    found: list[Text] = []
    for part in parts:
        if found and found[-1].cell_len + _GAP + part.cell_len <= width:
            found[-1] = found[-1] + Text(" " * _GAP) + part
        else:
            found.append(part.copy())
    for line in found:
        line.truncate(width, overflow="ellipsis")
    return found


def _current(rows: Sequence[Row]) -> int:
    """The stage to look at: the one that runs, or else the last that has been worked on."""
    for state in ("running", "failed", "interrupted", "done", "done earlier"):
        found = [number for number, row in enumerate(rows) if row.state == state]
        if found:
            return found[-1]
    return 0


def _shown(blocks: Sequence[list[Text]], current: int, height: int | None) -> tuple[int, int]:
    """The first stage that there is room for around the current one, and the one behind the last."""
    first, last = 0, len(blocks)
    while height is not None and last - first > 1:
        if sum(map(len, blocks[first:last])) + (first > 0) + (last < len(blocks)) <= height:
            break
        if current - first >= last - 1 - current:
            first += 1
        else:
            last -= 1
    return first, last


def _counted(number: int, where: str) -> list[Text]:
    return [Text(f"... {number} {'stage' if number == 1 else 'stages'} {where}", "dim")] if number else []
