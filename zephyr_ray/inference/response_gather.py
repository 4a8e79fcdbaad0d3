"""Gathers the files of a stage's replies into compressed parts (the protocol: `response_log`).

Memory use does not depend on how many records there are. A part is a sequence of zstandard frames, each with some
lines, so `zstd -dc` and pyarrow read it as one file, and a reply is read from it by decompressing one frame. Its index
has a row for each frame and each prompt with a reply in it: {row (`row_hash`), offset and size of the frame in bytes}.
"""

from __future__ import annotations

import array
import hashlib
import json
import logging
import posixpath
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from zephyr_ray.inference import response_log
from zephyr_ray.inference.create_file import create_file
from zephyr_ray.inference.response_log import INDEX, PART, Commit, Listing, Pass, Source

_FRAME_BYTES = 1 << 16  # of lines: what is decompressed for a reply
_PART_BYTES = 256 << 20  # of lines
_COMMIT_BYTES, _COMMIT_FILES = 4 << 30, 10_000  # read for one commit: what a kill has done in vain, and names in memory
_TRIES = 20  # in a row that another driver gathered the same files
_THREADS = 4
_FRAMES_AHEAD = 16
_logger = logging.getLogger(__name__)


def gather(filesystem: pafs.FileSystem, folder: str, epoch: int = 0) -> None:
    """Gathers all files of this epoch and of lower ones.

    Args:
        filesystem: Where the folder is.
        folder: Of the replies. It need not exist.
        epoch: The driver's own.

    Raises:
        OSError: A file cannot be read or written; what is there can be read as before.
    """
    tries = 0
    while tries < _TRIES:
        found = response_log.listing(filesystem, folder)
        response_log.delete(filesystem, folder, found.spent)
        stray = [name for name in found.stray if response_log.epoch_of(name) <= epoch]
        sources = [each for each in found.loose if each.epoch <= epoch]
        if stray:
            done = _delete_stray(filesystem, folder, found, stray)
        elif sources:
            done = _gather_some(filesystem, folder, found, sources, epoch)
        else:
            return
        tries = 0 if done else tries + 1
    raise OSError(f"{folder}: another command gathers these replies at the same time; end it, then start again")


def row_hash(prompt_id: str) -> int:
    """What a row is found by in an index: 64 bits with a sign. Two rows may have the same."""
    digest = hashlib.blake2b(prompt_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _delete_stray(filesystem: pafs.FileSystem, folder: str, found: Listing, stray: list[str]) -> bool:
    """Deletes parts that no commit names; returns False if another driver has committed since the listing.

    The gathering that wrote them may still be going on, in a driver that was paused. It has seen no more commits than
    this listing, so it cannot commit once the next one is there, which is empty.
    """
    if not _commit(filesystem, folder, found, Commit([], {}, response_log.no_totals(), 0)):
        return False
    response_log.delete(filesystem, folder, stray)
    return True


def _gather_some(filesystem: pafs.FileSystem, folder: str, found: Listing, sources: list[Source], epoch: int) -> bool:
    """Gathers as many files as one commit may name, or none; returns False if another driver was faster."""
    parts = _Parts(filesystem, folder, response_log.unique_stem(epoch))
    try:
        some = list(_first(response_log.in_order(filesystem, folder, sources)))
        if isinstance(filesystem, pafs.LocalFileSystem):
            some = [response_log.seal(folder, each) for each in some]
        commit = _merge(Pass(filesystem, folder, found.read), some, parts)
        is_ours = _commit(filesystem, folder, found, commit)
    except FileNotFoundError:
        is_ours = False
    gone = [each.name for each in some] if is_ours else parts.names()
    response_log.delete(filesystem, folder, gone)
    return is_ours


def _commit(filesystem: pafs.FileSystem, folder: str, found: Listing, commit: Commit) -> bool:
    """Creates the commit after those of the listing; returns False if another driver has done so."""
    path = posixpath.join(folder, f"gathered-{len(found.commits) + 1:06d}.json")
    return create_file(filesystem, path, json.dumps(asdict(commit)).encode())


def _first(sources: Iterable[Source]) -> Iterator[Source]:
    """The first files, as many as one commit may name, and at least one."""
    size = 0
    for number, source in enumerate(sources):
        if number >= _COMMIT_FILES or size >= _COMMIT_BYTES:
            return
        size += source.size
        yield source


def _merge(files: Pass, sources: list[Source], parts: _Parts) -> Commit:
    """Writes the parts of some files; they do not count yet."""
    commit = Commit([], {}, response_log.no_totals(), 0)
    unreadable: list[int] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        frames = _frames(files, sources, commit.totals, unreadable)
        for frame in response_log.ahead(pool, _compressed, frames, _FRAMES_AHEAD):
            parts.add(frame)
    parts.close()
    read = {source.key: files.read[source.key] for source in sources}
    return Commit(parts.written, read, commit.totals, sum(unreadable))


@dataclass
class _Frame:
    lines: list[bytes] = field(default_factory=list)
    rows: set[int] = field(default_factory=set)
    size: int = 0
    """Bytes of the lines."""
    data: Any = b""
    """The lines, compressed."""


def _compressed(frame: _Frame) -> _Frame:
    frame.data = pa.Codec("zstd", compression_level=1).compress(b"".join(frame.lines), asbytes=True)
    frame.lines = []
    return frame


def _frames(files: Pass, sources: list[Source], totals: dict[str, float], unreadable: list[int]) -> Iterator[_Frame]:
    """The lines of files, in frames; counts the records, and for each file the lines that are none."""
    frame = _Frame()
    for source, lines in files.files(sources):
        bad = 0
        for _, line in lines:
            record = response_log.parse(line)
            if record is None:
                bad += 1
            else:
                response_log.count(totals, record)
                frame.rows.add(row_hash(record["prompt_id"]))
            frame.lines.append(line)
            frame.size += len(line)
            if frame.size >= _FRAME_BYTES:
                yield frame
                frame = _Frame()
        if bad:
            unreadable.append(bad)
            _logger.warning("%s: %d lines are not replies; they are kept, not used", source.name, bad)
    if frame.lines:
        yield frame


class _Parts:
    """Writes frames into parts, with their indexes, under names that nobody else has."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, stem: str):
        self.written: list[str] = []
        """Names of the parts that are complete."""
        self._filesystem, self._folder, self._stem = filesystem, folder, stem
        self._is_local = isinstance(filesystem, pafs.LocalFileSystem)
        self._stream: Any = None
        self._started = 0

    def names(self) -> list[str]:
        """Of all files that may be there."""
        stems = [f"{self._stem}-{number:05d}" for number in range(self._started)]
        return [stem + suffix for stem in stems for suffix in (PART, INDEX)]

    def add(self, frame: _Frame) -> None:
        if self._stream is None:
            self._open()
        self._rows.extend(frame.rows)
        self._offsets.extend([self._end] * len(frame.rows))
        self._sizes.extend([len(frame.data)] * len(frame.rows))
        self._stream.write(frame.data)
        self._end += len(frame.data)
        self._lines_size += frame.size
        if self._lines_size >= _PART_BYTES:
            self.close()

    def close(self) -> None:
        """Completes the last part."""
        if self._stream is None:
            return
        self._stream.close()
        self._stream = None
        part = f"{self._stem}-{self._started - 1:05d}{PART}"
        index = pa.table(
            {
                "row": pa.array(self._rows, pa.int64()),
                "offset": pa.array(self._offsets, pa.int64()),
                "size": pa.array(self._sizes, pa.int64()),
            }
        )
        pq.write_table(index, self._path(response_log.index_of(part)), filesystem=self._filesystem, compression="zstd")
        if self._is_local:
            for name in (part, response_log.index_of(part)):
                response_log.sync(self._path(name))
        self.written.append(part)

    def _open(self) -> None:
        path = self._path(f"{self._stem}-{self._started:05d}{PART}")
        self._started += 1
        self._stream = self._filesystem.open_output_stream(path, compression=None)
        self._rows, self._offsets, self._sizes = array.array("q"), array.array("q"), array.array("q")
        self._end = self._lines_size = 0

    def _path(self, name: str) -> str:
        return posixpath.join(self._folder, name)
