"""Examples of what was dropped and changed in dialogues, and where the rows of a report came from.

Examples are the rows whose `source` has the lowest hash: the same ones however the rows lie in files, and drawn without
favour. A first pass reads only the columns that choose them, a second one only the files that hold one.
"""

from __future__ import annotations

import heapq
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.data import marked_text
from zephyr_ray.data.dialogue_counts import file_of
from zephyr_ray.data.io import file_tasks, keys
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.writer import Report
from zephyr_ray.data.marked_text import Piece, Turn
from zephyr_ray.pipeline.artifacts import Artifact

EXAMPLES = 20
"""Of each reason and of each step."""

_CHOSEN_BY = {"data": [], "dropped": ["reason"], "changed": ["step"]}


class Place(NamedTuple):
    """A row of an artifact, to be shown."""

    hash: int
    """Of its source."""
    file: str
    row: int


@dataclass
class Scan:
    """What the columns of sources, reasons and steps tell."""

    kept: Counter[str] = field(default_factory=Counter)
    """Kept rows by source file."""
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Dropped rows by source file and reason."""
    places: dict[tuple[str, str], list[Place]] = field(default_factory=dict)
    """The examples of ("dropped", reason) and ("changed", step), in order."""

    def add(self, other: Scan) -> None:
        self.kept.update(other.kept)
        self.dropped.update(other.dropped)
        for group, places in other.places.items():
            self.places[group] = heapq.nsmallest(EXAMPLES, [*self.places.get(group, ()), *places])


@dataclass(frozen=True)
class DroppedExample:
    source: str
    detail: str
    turns: list[Turn] | None
    """None: the dropped row does not have its dialogue."""


@dataclass(frozen=True)
class ChangedExample:
    source: str
    turn: int
    before: list[Piece]
    after: list[Piece]


@dataclass(frozen=True)
class Examples:
    dropped: dict[str, list[DroppedExample]]
    """By reason."""
    changed: dict[str, list[ChangedExample]]
    """By step."""


def scan(artifact: Artifact, report: Report) -> Scan:
    """Looks through all rows of an artifact."""
    names = sorted(name for name in report.files if posixpath.dirname(name) in _CHOSEN_BY)
    total = Scan()
    for found in file_tasks.results(_scan, [(group, artifact) for group in file_tasks.groups(names)]):
        total.add(found)
    return total


def examples(artifact: Artifact, places: dict[tuple[str, str], list[Place]]) -> Examples:
    """The rows at these places, as they are shown."""
    wanted: dict[str, set[int]] = {}
    for place in (place for group in places.values() for place in group):
        wanted.setdefault(place.file, set()).add(place.row)
    calls = [(group, artifact) for group in file_tasks.groups(sorted((file, sorted(wanted[file])) for file in wanted))]
    rows: dict[tuple[str, int], Any] = {}
    for found in file_tasks.results(_read, calls):
        rows |= found
    shown: dict[str, dict[str, list[Any]]] = {"dropped": {}, "changed": {}}
    for (folder, name), group in places.items():
        shown[folder][name] = [rows[place.file, place.row] for place in group]
    return Examples(**shown)


def _scan(names: Sequence[str], artifact: Artifact) -> Scan:
    total = Scan()
    for name in names:
        folder = posixpath.dirname(name)
        with open_parquet(posixpath.join(artifact.path, name), artifact.run.filesystem) as file:
            rows = file.read(["source", *_CHOSEN_BY[folder]])
        total.add(_scanned(folder, name, rows))
    return total


def _scanned(folder: str, name: str, rows: pa.Table) -> Scan:
    found, files = Scan(), file_of(rows["source"])
    if folder == "data":
        found.kept.update({each["values"]: each["counts"] for each in pc.value_counts(files).to_pylist()})
        return found
    if folder == "dropped":
        grouped = pa.table({"file": files, "reason": rows["reason"]}).group_by(["file", "reason"])
        counted = grouped.aggregate([([], "count_all")]).to_pylist()
        found.dropped.update({(each["file"], each["reason"]): each["count_all"] for each in counted})
    hashes, groups = keys.keys_of(rows["source"])[0], rows.column(1)
    for group in pc.unique(groups).to_pylist():
        mine = np.flatnonzero(pc.equal(groups, group).to_numpy())
        found.places[folder, group] = [Place(int(hashes[row]), name, int(row)) for row in _lowest(hashes, mine)]
    return found


def _lowest(hashes: np.ndarray, rows: np.ndarray) -> Iterable[int]:
    """Of some rows the first of each of the lowest hashes, in their order."""
    _, first = np.unique(hashes[rows], return_index=True)
    return rows[first[:EXAMPLES]]


def _read(files: Sequence[tuple[str, Sequence[int]]], artifact: Artifact) -> dict[tuple[str, int], Any]:
    found: dict[tuple[str, int], Any] = {}
    for name, numbers in files:
        with open_parquet(posixpath.join(artifact.path, name), artifact.run.filesystem) as file:
            rows = file.read().take(pa.array(numbers)).to_pylist()
        make = _dropped_example if name.startswith("dropped/") else _changed_example
        found |= {(name, number): make(row) for number, row in zip(numbers, rows, strict=True)}
    return found


def _dropped_example(row: dict[str, Any]) -> DroppedExample:
    messages = row.get("messages")
    turns = None if messages is None else marked_text.found(messages, row["detail"])
    return DroppedExample(row["source"], row["detail"], turns)


def _changed_example(row: dict[str, Any]) -> ChangedExample:
    return ChangedExample(row["source"], row["turn"], *marked_text.differences(row["before"], row["after"]))
