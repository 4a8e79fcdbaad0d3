"""Counts of dialogues that merge with others: what the report of `dialogues` shows of them as they were read and as
they are kept.

Everything here is counted in tasks on files, by whole columns; only dialogues that cleaning changed are looked at one
by one.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.data.cleaning.chain import Change
from zephyr_ray.data.cleaning.language import language_of_dialogue
from zephyr_ray.data.cleaning.undo import undone
from zephyr_ray.data.io import file_tasks
from zephyr_ray.data.io.histogram import Histogram
from zephyr_ray.data.io.lengths import message_characters
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.rewrite import kept_files
from zephyr_ray.data.io.writer import Report, changes_of
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import MESSAGES

_ROWS = 4096
_SAMPLE = 64  # of so many rows, whose language is looked at: some 0.2 ms each
_REFUSES = (
    r"(?i)\b(?:as|i am|i'm|i’m) (?:just |only |merely )?an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|^\W*(?:(?:i'm|i’m|i am|i apologi[sz]e|sorry|my apologies|unfortunately)\b[^.!?\n]{0,60}?)?"
    r"\bi (?:cannot|can't|can’t|can not|am unable|am not able|do not have|don't have|don’t have)\b"
)
"""Says what it is or, at its start, what it cannot: plain words, so that several cleanings can be compared; what the
step `refusals` takes out it decides by more."""
_LOWER_CASE = r"^\P{L}*\p{L}\P{Lu}*[.!?][\"”')]*\s+\p{Ll}\P{Lu}*$"
"""No capital letter after the first letter, although another sentence begins."""
_PLACE = r":\d+(?:/\d+)?$"


@dataclass
class TextCounts:
    """What was seen of dialogues."""

    dialogues: int = 0
    characters: Histogram = field(default_factory=Histogram)
    """Of a dialogue."""
    turns: Histogram = field(default_factory=Histogram)
    """Messages of a dialogue."""
    replies: int = 0
    """The assistant's messages."""
    refusing: int = 0
    """Replies that refuse or say that a machine wrote them, by a plain pattern."""
    lower_case: int = 0
    """Replies of several sentences, none of which after the first begins with a capital letter."""
    languages: Counter[str] = field(default_factory=Counter)
    """About how many dialogues are in each language, by a sample."""

    def add(self, other: TextCounts) -> None:
        for name in ("dialogues", "replies", "refusing", "lower_case"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.characters.add(other.characters)
        self.turns.add(other.turns)
        self.languages.update(other.languages)


@dataclass
class ReadCounts:
    """What was seen of the rows of an artifact when its steps were through: no row was compared with another yet."""

    as_read: TextCounts = field(default_factory=TextCounts)
    """All dialogues, before the first step."""
    left_out: TextCounts = field(default_factory=TextCounts)
    """Those among them that a step dropped."""
    kept: TextCounts = field(default_factory=TextCounts)
    """Those that no step dropped, after the last one."""
    unread: Counter[str] = field(default_factory=Counter)
    """Rows that are no dialogues, by reason."""
    dropped: dict[str, int] = field(default_factory=dict)
    """All rows dropped so far, by reason."""

    def add(self, other: ReadCounts) -> None:
        self.as_read.add(other.as_read)
        self.left_out.add(other.left_out)
        self.kept.add(other.kept)
        self.unread.update(other.unread)


def count_texts(messages: pa.ChunkedArray) -> TextCounts:
    """Counts message lists without nulls."""
    counts = TextCounts(dialogues=len(messages))
    if not len(messages):
        return counts
    lists = messages.combine_chunks()
    counts.characters.count(message_characters(messages))
    counts.turns.count(pc.list_value_length(lists).to_numpy())
    flat = pc.list_flatten(lists)
    replies = pc.struct_field(flat, "content").filter(pc.equal(pc.struct_field(flat, "role"), "assistant"))
    counts.replies = len(replies)
    counts.refusing = _matching(replies, _REFUSES)
    counts.lower_case = _matching(replies, _LOWER_CASE)
    counts.languages = _languages(lists)
    return counts


def _languages(lists: pa.Array) -> Counter[str]:
    """Each language that a sample, evenly spaced, is in, with the number of dialogues that its part stands for."""
    sample = lists.take(pa.array(np.unique(np.linspace(0, len(lists) - 1, _SAMPLE).astype(int)))).to_pylist()
    found = Counter(language_of_dialogue(messages) or "no words" for messages in sample)
    return Counter({name: round(count * len(lists) / len(sample)) for name, count in found.items()})


def count_read(artifact: Artifact, report: Report) -> ReadCounts:
    """Counts the rows of an artifact before any of those that the steps kept are left out."""
    files = sorted(name for name in report.files if name.startswith(("data/", "dropped/")))
    total = ReadCounts(dropped=dict(report.dropped))
    calls = [(group, artifact, _changes_beside(group, report.files)) for group in file_tasks.groups(files)]
    for counted in file_tasks.results(_count_read, calls):
        total.add(counted)
    return total


def count_kept(artifact: Artifact, report: Report) -> TextCounts:
    """Counts the rows that an artifact keeps."""
    total = TextCounts()
    calls = [(group, artifact) for group in file_tasks.groups(kept_files(report.files))]
    for counted in file_tasks.results(_count_kept, calls):
        total.add(counted)
    return total


def file_of(sources: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """The files of sources (`file:line`)."""
    return pc.replace_substring_regex(sources, _PLACE, "")


def _changes_beside(names: Sequence[str], there: Iterable[str]) -> frozenset[str]:
    return frozenset(changes_of(name) for name in names if name.startswith("data/")) & frozenset(there)


def _count_read(names: Sequence[str], artifact: Artifact, changed: frozenset[str]) -> ReadCounts:
    counts = ReadCounts()
    for name in names:
        is_kept = name.startswith("data/")
        changes = _changes(artifact, changes_of(name)) if is_kept and changes_of(name) in changed else {}
        columns = ["source", "messages"] if is_kept else ["reason", "messages"]
        with open_parquet(posixpath.join(artifact.path, name), artifact.run.filesystem) as file:
            for batch in file.iter_batches(_ROWS, columns=columns):
                rows = pa.Table.from_batches([batch])
                if is_kept:
                    counts.add(_kept_and_as_read(rows, changes))
                else:
                    unread = rows.filter(pc.is_null(rows["messages"]))
                    counts.unread.update(unread["reason"].to_pylist())
                    left_out = count_texts(rows["messages"].drop_null())
                    counts.as_read.add(left_out)
                    counts.left_out.add(left_out)
    return counts


def _kept_and_as_read(rows: pa.Table, changes: Mapping[str, list[Change]]) -> ReadCounts:
    counts = ReadCounts(kept=count_texts(rows["messages"]))
    is_changed = pc.is_in(rows["source"], pa.array(changes, pa.string()))
    counts.as_read.add(count_texts(rows["messages"].filter(pc.invert(is_changed))))
    changed = rows.filter(is_changed).to_pylist()
    read = [undone(row["messages"], changes[row["source"]]) for row in changed]
    counts.as_read.add(count_texts(pa.chunked_array([pa.array(read, MESSAGES)])))
    return counts


def _changes(artifact: Artifact, name: str) -> dict[str, list[Change]]:
    """What was changed in the rows of a file, by their source."""
    with open_parquet(posixpath.join(artifact.path, name), artifact.run.filesystem) as file:
        rows = file.read(["source", *Change._fields]).to_pylist()
    found: dict[str, list[Change]] = {}
    for row in rows:
        found.setdefault(row.pop("source"), []).append(Change(**row))
    return found


def _count_kept(names: Sequence[str], artifact: Artifact) -> TextCounts:
    counts = TextCounts()
    for name in names:
        with open_parquet(posixpath.join(artifact.path, name), artifact.run.filesystem) as file:
            for batch in file.iter_batches(_ROWS, columns=["messages"]):
                counts.add(count_texts(pa.Table.from_batches([batch])["messages"]))
    return counts


def _matching(texts: pa.Array, pattern: str) -> int:
    return int(np.count_nonzero(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)))
