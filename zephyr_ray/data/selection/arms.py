"""What chosen dialogues are like beside all of them and beside as many that were drawn: counts by whole columns."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc
import pyarrow.fs as pafs

from zephyr_ray.data.dialogue_counts import file_of
from zephyr_ray.data.io import file_tasks, lengths
from zephyr_ray.data.io.histogram import Histogram
from zephyr_ray.data.io.id_sets import KeyTable
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.selection.highest import Score, answer_characters
from zephyr_ray.pipeline.artifacts import Artifact

_DIGITS = 3  # of a score: so that there are not as many of them as there are rows


@dataclass
class Arm:
    """Some of the dialogues."""

    dialogues: int = 0
    characters: Histogram = field(default_factory=Histogram)
    """Of a dialogue."""
    answer_characters: Histogram = field(default_factory=Histogram)
    """Of a dialogue's answers."""
    messages: Histogram = field(default_factory=Histogram)
    """Of a dialogue."""
    sources: Counter[str] = field(default_factory=Counter)
    """Dialogues by the file that they came from."""

    def add(self, other: Arm) -> None:
        self.dialogues += other.dialogues
        self.characters.add(other.characters)
        self.answer_characters.add(other.answer_characters)
        self.messages.add(other.messages)
        self.sources += other.sources


@dataclass
class Arms:
    """All dialogues, those that were chosen, and as many that were drawn: the control arm."""

    everything: Arm = field(default_factory=Arm)
    chosen: Arm = field(default_factory=Arm)
    random: Arm = field(default_factory=Arm)

    def add(self, other: Arms) -> None:
        self.everything.add(other.everything)
        self.chosen.add(other.chosen)
        self.random.add(other.random)


@dataclass
class ScoreCounts:
    """Scores to three digits and how often each occurs, in the three arms; rows without a score are left out."""

    everything: Counter[float] = field(default_factory=Counter)
    chosen: Counter[float] = field(default_factory=Counter)
    random: Counter[float] = field(default_factory=Counter)

    def add(self, other: ScoreCounts) -> None:
        self.everything += other.everything
        self.chosen += other.chosen
        self.random += other.random


def count_arms(dialogues: Artifact, chosen: KeyTable, random: KeyTable) -> Arms:
    """Counts the dialogues of an artifact."""
    total = Arms()
    calls = [(group, dialogues.run.filesystem, chosen, random) for group in file_tasks.groups(dialogues.files())]
    for counted in file_tasks.results(_count_arms, calls):
        total.add(counted)
    return total


def count_scores(
    rows: Artifact, id_column: str, columns: Sequence[str], score: Score, chosen: KeyTable, random: KeyTable
) -> ScoreCounts:
    """Counts the scores of an artifact's rows. Arguments as `highest.highest`."""
    total = ScoreCounts()
    shared = rows.run.filesystem, id_column, columns, score, chosen, random
    for counted in file_tasks.results(_count_scores, [(group, *shared) for group in file_tasks.groups(rows.files())]):
        total.add(counted)
    return total


def _count_arms(paths: Sequence[str], filesystem: pafs.FileSystem, chosen: KeyTable, random: KeyTable) -> Arms:
    total = Arms()
    for path in paths:
        with open_parquet(path, filesystem) as file:
            rows = file.read(["dialogue_id", "messages", "source"])
        counts = {
            "characters": lengths.message_characters(rows["messages"]),
            "answer_characters": answer_characters(rows),
            "messages": pc.list_value_length(rows["messages"]).to_numpy(),
        }
        files = np.array([posixpath.basename(name) or name for name in file_of(rows["source"]).to_pylist()])
        arms = {
            "everything": np.ones(rows.num_rows, bool),
            "chosen": chosen.has(rows["dialogue_id"]),
            "random": random.has(rows["dialogue_id"]),
        }
        for name, mine in arms.items():
            arm = Arm(int(mine.sum()), sources=Counter(files[mine].tolist()))
            for what, values in counts.items():
                getattr(arm, what).count(values[mine])
            getattr(total, name).add(arm)
    return total


def _count_scores(
    paths: Sequence[str],
    filesystem: pafs.FileSystem,
    id_column: str,
    columns: Sequence[str],
    score: Score,
    chosen: KeyTable,
    random: KeyTable,
) -> ScoreCounts:
    total = ScoreCounts()
    for path in paths:
        with open_parquet(path, filesystem) as file:
            rows = file.read([id_column, *columns])
        scores = score(rows)
        there = np.isfinite(scores)
        for name, mine in (
            ("everything", there),
            ("chosen", there & chosen.has(rows[id_column])),
            ("random", there & random.has(rows[id_column])),
        ):
            getattr(total, name).update(float(f"{value:.{_DIGITS}g}") for value in scores[mine].tolist())
    return total
