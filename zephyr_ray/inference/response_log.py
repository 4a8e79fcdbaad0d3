"""The files of a stage's replies. What is read is each record that was written, once, whatever was killed or paused.

    000003-<random>.jsonl               one JSON object a line, on a disk; 000003 is the epoch of the driver
    000003-<random>-<count>.jsonl       the same where files cannot be appended to: an object for each write
    000003-<random>-<number>.jsonl.zst  a part of gathered records (`response_gather`), and beside it
    000003-<random>-<number>.parquet    where in the part the replies to each row lie
    gathered-<number>.json              a commit: parts that count, the files whose records they have, and totals

A file counts until a commit names it, and a part once a commit names it. Commits are numbered, and each is created only
if there is none of its number. So a driver that gathers commits what it has seen since the commit before, or nothing:
no file is ever in two commits, and only then are the files deleted. It gathers files of its own epoch or lower ones.

The writer of such a file may be a driver that was paused and does not know that it has a successor. In an object store
its later objects are further files. On a disk its file is renamed to `.sealed` before it is read. After each write a
writer looks whether its file still has its name. If not, nobody may have read what it wrote, so it writes that again to
a new file. This begins with a line that says where its first n bytes of records were written before, and that it is the
third file, say, of its writer: `{"repeats": [[file, start]], "bytes": n, "number": 3}`. A commit says how many bytes of
each file were read, hence which of these records it has.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import posixpath
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow.fs as pafs
from pydantic_core import from_json

PART, INDEX = ".jsonl.zst", ".parquet"
_SEALED, _PARTIAL = ".sealed", ".partial"
_OBJECT = re.compile(r"(?:[0-9]{6}-)?[0-9a-f]{16}-[0-9]{8}\.jsonl")
_GATHERED = re.compile(r"[0-9]{6}-[0-9a-f]{16}-[0-9]{5}(\.jsonl\.zst|\.parquet)")
_COMMIT = re.compile(r"gathered-([0-9]{6})\.json")
_EPOCH = re.compile(r"([0-9]{6})-[0-9a-f]{16}")
_THREADS = 32  # reading an object takes tens of milliseconds, and a run writes two per second
_MERGED = b'{"files": ['  # begins a file that an earlier version of this package merged others into
_HUGE = 1e15  # no reply costs or counts as much

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Source:
    """A file whose records no commit has."""

    name: str
    """As it is there now."""
    size: int
    """In bytes, when it was listed."""

    @property
    def key(self) -> str:
        """The name under which it was written."""
        return self.name.removesuffix(_SEALED)

    @property
    def epoch(self) -> int:
        return epoch_of(self.name)

    @property
    def is_object(self) -> bool:
        """Whether it was written at once, and is small."""
        return bool(_OBJECT.fullmatch(self.name))

    @property
    def may_be_open(self) -> bool:
        """Whether its writer may still append to it under this name."""
        return self.name.endswith(".jsonl") and not self.is_object


@dataclass(frozen=True)
class Commit:
    """What a gathering has made to count."""

    parts: list[str]
    """Names of the parts."""
    files: dict[str, int]
    """Bytes read of each file whose records are in them."""
    totals: dict[str, float]
    """Of the records (`no_totals`)."""
    unreadable: int
    """Lines that are no records; they are in the parts too."""


@dataclass
class Listing:
    """What lies in the folder."""

    commits: list[Commit] = field(default_factory=list)
    loose: list[Source] = field(default_factory=list)
    """Files in no commit."""
    spent: list[str] = field(default_factory=list)
    """Files in a commit, which a kill has left."""
    stray: list[str] = field(default_factory=list)
    """Parts in no commit: of a gathering that was killed, or is still going on."""

    @property
    def read(self) -> dict[str, int]:
        """Bytes read of each file by all commits."""
        return {name: size for commit in self.commits for name, size in commit.files.items()}


class Pass:
    """One pass over files that no commit has. Files that repeat others come after them (`in_order`)."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, read: dict[str, int]):
        """
        Args:
            filesystem: Where the folder is.
            folder: Of the files.
            read: Bytes read of each file by all commits.
        """
        self._filesystem, self._folder = filesystem, folder
        self.read = dict(read)
        """With those of the files of this pass, once they are through."""

    def files(self, sources: Iterable[Source]) -> Iterator[tuple[Source, Iterator[tuple[int, bytes]]]]:
        """Each file with its lines and where they start; small files are read ahead in parallel.

        Raises:
            FileNotFoundError: A file is gone, because another driver has gathered it.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            for source, content in ahead(pool, self._content, sources, 2 * _THREADS):
                yield source, self._lines(source, content)

    def _content(self, source: Source) -> tuple[Source, bytes | None]:
        if not source.is_object:
            return source, None
        with self._filesystem.open_input_stream(posixpath.join(self._folder, source.name)) as stream:
            return source, stream.read()

    def _lines(self, source: Source, content: bytes | None) -> Iterator[tuple[int, bytes]]:
        path = posixpath.join(self._folder, source.name)
        lines = complete_lines(self._filesystem, path) if content is None else whole(io.BytesIO(content))
        position, header, repeated = 0, 0, _Repeats([], 0, 0)
        for line in lines:
            start, position = position, position + len(line)
            if start == 0 and not source.is_object and (found := _repeats(line)) is not None:
                header, repeated = position, found
            elif not repeated.has(position - header, self.read):
                yield start, line
        self.read[source.key] = position


@dataclass(frozen=True)
class _Repeats:
    """What the first line of a file says about the records after it."""

    places: list[tuple[str, int]]
    """Files and where in them the same records begin."""
    size: int
    """Bytes of these records together."""
    number: int
    """Of the file, among those of its writer: it repeats records of earlier ones."""

    def has(self, end: int, read: dict[str, int]) -> bool:
        """Whether a record was read elsewhere, which ends so many bytes after the line."""
        return end <= self.size and any(read.get(name, 0) >= start + end for name, start in self.places)


def _repeats(line: bytes) -> _Repeats | None:
    """The content of a first line that is no record; also that of files of an earlier version, which lists names."""
    if line.startswith(_MERGED):
        return _Repeats([], 0, 0)
    if not line.startswith(b'{"repeats": ['):
        return None
    try:
        found = json.loads(line)
        places = [(str(name), int(start)) for name, start in found["repeats"]]
        return _Repeats(places, int(found["bytes"]), int(found["number"]))
    except (ValueError, TypeError, KeyError):
        return None


def in_order(filesystem: pafs.FileSystem, folder: str, sources: Iterable[Source]) -> list[Source]:
    """Files in the order of a `Pass`: those that may repeat others' records after these."""

    def number(source: Source) -> int:
        if source.is_object or source.name.endswith(PART):
            return 0
        first = next(complete_lines(filesystem, posixpath.join(folder, source.name)), b"")
        found = _repeats(first)
        return found.number if found else 0

    return sorted(sources, key=number)


def listing(filesystem: pafs.FileSystem, folder: str) -> Listing:
    """What lies in the folder now."""
    infos = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    sizes = {info.base_name: info.size or 0 for info in sorted(infos, key=lambda each: each.base_name)}
    found = Listing(
        [read_commit(filesystem, posixpath.join(folder, name)) for name in sizes if _COMMIT.fullmatch(name)]
    )
    counting = {name for commit in found.commits for part in commit.parts for name in (part, index_of(part))}
    read = found.read | _of_earlier_version(filesystem, folder, sizes)
    for name, size in sizes.items():
        source = Source(name, size)
        if name.endswith(_PARTIAL) or (_GATHERED.fullmatch(name) and name not in counting):
            found.stray.append(name)
        elif _GATHERED.fullmatch(name) or not name.endswith((".jsonl", _SEALED, PART)):
            continue
        elif source.key in read:
            found.spent.append(name)
        else:
            found.loose.append(source)
    return found


def read_commit(filesystem: pafs.FileSystem, path: str) -> Commit:
    with filesystem.open_input_stream(path) as stream:
        return Commit(**json.loads(stream.read()))


def _of_earlier_version(filesystem: pafs.FileSystem, folder: str, names: Iterable[str]) -> dict[str, int]:
    """The files that are merged into a file of an earlier version of this package, whose first line names them."""
    merged: dict[str, int] = {}
    for name in names:
        if name.endswith(PART) and not _GATHERED.fullmatch(name):
            first = next(complete_lines(filesystem, posixpath.join(folder, name)), b"")
            if first.startswith(_MERGED):
                merged |= dict.fromkeys(json.loads(first)["files"], 0)
    return merged


def read(filesystem: pafs.FileSystem, folder: str) -> Iterator[dict[str, Any]]:
    """All records, each once; lines that are none are skipped."""
    found = listing(filesystem, folder)
    parts = [part for commit in found.commits for part in commit.parts]
    lines = (line for part in parts for line in complete_lines(filesystem, posixpath.join(folder, part)))
    files = Pass(filesystem, folder, found.read).files(in_order(filesystem, folder, found.loose))
    loose = (line for _, numbered in files for _, line in numbered)
    for each in (lines, loose):
        yield from (record for line in each if (record := parse(line)) is not None)


def parse(line: bytes) -> dict[str, Any] | None:
    """The record of a line, or None if it is none: {prompt_id, key, answer, prompt_tokens, usd}."""
    try:
        record = from_json(line, cache_strings="keys")
    except ValueError:
        try:  # takes half a surrogate pair too
            record = json.loads(line)
        except (ValueError, RecursionError):
            return None
    return record if is_record(record) else None


def is_record(record: Any) -> bool:
    """Whether a JSON value has what a reply is looked up by, and a completion."""
    return (
        isinstance(record, dict)
        and isinstance(record.get("prompt_id"), str)
        and isinstance(record.get("key"), str)
        and isinstance(record.get("answer"), dict)
    )


def no_totals() -> dict[str, float]:
    """Totals of no records."""
    return {"requests": 0, "prompt_tokens": 0, "tokens": 0, "usd": 0.0}


def count(totals: dict[str, float], record: dict[str, Any]) -> None:
    """Adds a record to the totals. What is no number, is negative or beyond measure counts as 0, so they never fall."""
    totals["requests"] += 1
    totals["prompt_tokens"] += _amount(record.get("prompt_tokens"))
    totals["tokens"] += _amount(record["answer"].get("tokens"))
    totals["usd"] += _amount(record.get("usd"))


def add_totals(totals: dict[str, float], others: dict[str, float]) -> None:
    for name in totals:
        totals[name] += _amount(others.get(name))


def _amount(value: Any) -> float:
    return value if isinstance(value, int | float) and 0 <= value < _HUGE else 0


def unique_stem(epoch: int) -> str:
    """The beginning of a name that no other file has."""
    return f"{epoch:06d}-{secrets.token_hex(8)}"


def epoch_of(name: str) -> int:
    """The epoch of the driver that wrote a file; 0 if its name has none."""
    found = _EPOCH.match(name)
    return int(found[1]) if found else 0


def index_of(part: str) -> str:
    """The name of a part's index."""
    return part.removesuffix(PART) + INDEX


def seal(folder: str, source: Source) -> Source:
    """Takes the name of a file on a disk from its writer.

    Raises:
        FileNotFoundError: Another driver has done so.
    """
    if not source.may_be_open:
        return source
    sealed = source.name + _SEALED
    os.rename(posixpath.join(folder, source.name), posixpath.join(folder, sealed))
    return Source(sealed, source.size)


def complete_lines(filesystem: pafs.FileSystem, path: str) -> Iterator[bytes]:
    """The lines of a file, without a last one that a kill cut off."""
    with filesystem.open_input_stream(path) as stream, io.BufferedReader(stream, 1 << 20) as lines:
        yield from whole(lines)


def whole(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines that end with a line feed."""
    return (line for line in lines if line.endswith(b"\n"))


def delete(filesystem: pafs.FileSystem, folder: str, names: Iterable[str]) -> None:
    """Deletes files; one that is gone already is no error."""

    def remove(name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            filesystem.delete_file(posixpath.join(folder, name))

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in ahead(pool, remove, names, 4 * _THREADS):
            pass


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[_In], _Out], items: Iterable[_In], limit: int
) -> Iterator[_Out]:
    """As `pool.map`, but not more than so many calls ahead of the consumer."""
    running: deque[Future[_Out]] = deque()
    try:
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) >= limit:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for each in running:
            each.cancel()


def sync(path: str) -> None:
    """Flushes a file or a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
