"""The files of a ledger: a try appends its replies to its own, and the next one finds those of all tries in one.

<n>.jsonl, or <n>-<count>.jsonl where a file cannot be appended to     what try n was given, one JSON object a line
<n>.jsonl.zst                                                          first a line that names the files it is made of,
                                                                       then all their lines
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.fs as pafs

_NUMBER = re.compile(r"\d+")
_WHOLE, _PARTIAL = ".jsonl.zst", ".partial"
_THREADS = 32  # an object takes a store tens of milliseconds, and there are two for each second of a try
_OBJECTS = 512  # in memory at once


def merge(filesystem: pafs.FileSystem, folder: str) -> str | None:
    """Makes one compressed file of all there are, and returns its path; None where there are none.

    The file is safe before those that it is made of go. What a kill in between leaves of them is named in it, and not
    read a second time; any other file is, whenever it came.
    """
    names = _names(filesystem, folder)
    _delete(filesystem, folder, [name for name in names if name.endswith(_PARTIAL)])
    parts = [name for name in names if name.endswith((".jsonl", _WHOLE))]
    for whole in [name for name in parts if name.endswith(_WHOLE)]:
        there_already = _made_of(filesystem, posixpath.join(folder, whole)) & set(parts)
        _delete(filesystem, folder, sorted(there_already))
        parts = [name for name in parts if name not in there_already]
    if not parts:
        return None
    if len(parts) == 1 and parts[0].endswith(_WHOLE):
        return posixpath.join(folder, parts[0])
    path = posixpath.join(folder, f"{1 + max(map(number_of, parts)):03d}{_WHOLE}")
    _write_whole(filesystem, folder, parts, path)
    _delete(filesystem, folder, parts)
    return path


def read(filesystem: pafs.FileSystem, path: str) -> Iterator[dict[str, Any]]:
    """The records of a file that `merge` made."""
    lines = _complete_lines(filesystem, path)
    next(lines)
    return map(json.loads, lines)


def number_of(path: str) -> int:
    """The file's number: tries and merged files count on together."""
    (number, *_) = _NUMBER.findall(posixpath.basename(path))
    return int(number)


class Writer:
    """Writes what a try is given, so that it is safe when a call returns; nothing before the first one."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, number: int):
        """
        Args:
            number: Of the try.
        """
        self._filesystem, self._folder, self._number = filesystem, folder, number
        self._file: Any = None
        self._objects = 0

    def __call__(self, records: Iterable[dict[str, Any]]) -> None:
        data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        if self._file is None and not self._objects:
            self._filesystem.create_dir(self._folder, recursive=True)
        if isinstance(self._filesystem, pafs.LocalFileSystem):
            self._append(data)
        else:
            self._write_object(data)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._file = open(f"{self._prefix}.jsonl", "ab", buffering=0)  # noqa: SIM115 (open until the actor ends)
        end = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(end)  # else the next line would go on where this one was cut off
            raise

    def _write_object(self, data: bytes) -> None:
        path = f"{self._prefix}-{self._objects:08d}.jsonl"
        self._objects += 1  # what was stored but reported as failed is not written over
        with self._filesystem.open_output_stream(path) as stream:
            stream.write(data)

    @property
    def _prefix(self) -> str:
        return posixpath.join(self._folder, f"{self._number:03d}")


def _names(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    infos = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    return sorted(info.base_name for info in infos)


def _made_of(filesystem: pafs.FileSystem, whole: str) -> set[str]:
    return set(json.loads(next(_complete_lines(filesystem, whole)))["files"])


def _write_whole(filesystem: pafs.FileSystem, folder: str, parts: list[str], path: str) -> None:
    is_local = isinstance(filesystem, pafs.LocalFileSystem)
    with filesystem.open_output_stream(path + _PARTIAL, compression="zstd") as stream:
        stream.write(json.dumps({"files": parts}).encode() + b"\n")
        for line in _lines_of(filesystem, folder, parts):
            stream.write(line)
    if is_local:
        _sync(path + _PARTIAL)
    filesystem.move(path + _PARTIAL, path)
    if is_local:
        _sync(folder)


def _lines_of(filesystem: pafs.FileSystem, folder: str, parts: list[str]) -> Iterator[bytes]:
    """Every record's line; files that can be long are streamed, small ones read side by side."""
    small = [name for name in parts if "-" in name]
    for name in [name for name in parts if name not in set(small)]:
        lines = _complete_lines(filesystem, posixpath.join(folder, name))
        if name.endswith(_WHOLE):
            next(lines)
        yield from lines
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(small), _OBJECTS):
            paths = [posixpath.join(folder, name) for name in small[start : start + _OBJECTS]]
            for lines_of_one in pool.map(lambda path: list(_complete_lines(filesystem, path)), paths):
                yield from lines_of_one


def _complete_lines(filesystem: pafs.FileSystem, path: str) -> Iterator[bytes]:
    """A kill may have cut the last one off."""
    with filesystem.open_input_stream(path) as stream, io.BufferedReader(stream, 1 << 20) as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield line


def _delete(filesystem: pafs.FileSystem, folder: str, names: list[str]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(filesystem.delete_file, [posixpath.join(folder, name) for name in names]))


def _sync(path: str) -> None:
    """Has the disk write a file, or a folder's entries, before anything else is done."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
