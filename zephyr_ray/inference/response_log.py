"""Files of a ledger. Each run appends records to its own file; a finished stage's files are merged into a compressed
one. Names are random, so that two drivers never write to the same file.

<name>.jsonl, or <name>-<count>.jsonl where files cannot be appended to    one JSON object a line
<name>.jsonl.zst                                 a line that names the merged files, then all their lines
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.fs as pafs

_GATHERED, _PARTIAL = ".jsonl.zst", ".partial"
_THREADS = 32  # reading an object takes tens of milliseconds, and a run writes two per second
_OBJECTS = 512  # in memory at once


def read(filesystem: pafs.FileSystem, folder: str) -> Iterator[dict[str, Any]]:
    """The records of all runs, each once."""
    gathered, loose, _ = _files(filesystem, folder)
    return map(json.loads, _lines_of(filesystem, folder, [*gathered, *loose]))


def gather(filesystem: pafs.FileSystem, folder: str) -> None:
    """Merges all uncompressed files into a compressed one; call it when nothing is written any more.

    The merged file is durable before its parts are deleted. It names them, so that parts left over by a kill are not
    read a second time.
    """
    _, loose, left = _files(filesystem, folder)
    _delete(filesystem, folder, left)
    if loose:
        _write_gathered(filesystem, folder, loose, posixpath.join(folder, secrets.token_hex(8) + _GATHERED))
        _delete(filesystem, folder, loose)


class Writer:
    """Writes the records of a run; they are durable when a call returns. Creates no file before the first call."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str):
        self._filesystem, self._folder = filesystem, folder
        self._prefix = posixpath.join(folder, secrets.token_hex(8))
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
        end = self._file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(end)  # otherwise the next line would continue this cut one
            raise

    def _write_object(self, data: bytes) -> None:
        path = f"{self._prefix}-{self._objects:08d}.jsonl"
        self._objects += 1  # never overwrites an object that was stored but reported as failed
        with self._filesystem.open_output_stream(path) as stream:
            stream.write(data)


def _names(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    infos = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    return sorted(info.base_name for info in infos)


def _files(filesystem: pafs.FileSystem, folder: str) -> tuple[list[str], list[str], list[str]]:
    """(merged files, files in none of them, leftovers of merged files after a kill)."""
    names = _names(filesystem, folder)
    gathered = [name for name in names if name.endswith(_GATHERED)]
    inside = {part for name in gathered for part in _made_of(filesystem, posixpath.join(folder, name))}
    loose = [name for name in names if name.endswith(".jsonl") and name not in inside]
    return gathered, loose, [name for name in names if name in inside or name.endswith(_PARTIAL)]


def _made_of(filesystem: pafs.FileSystem, gathered: str) -> list[str]:
    lines = _complete_lines(filesystem, gathered)
    files: list[str] = json.loads(next(lines))["files"]
    return files


def _write_gathered(filesystem: pafs.FileSystem, folder: str, parts: list[str], path: str) -> None:
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


def _lines_of(filesystem: pafs.FileSystem, folder: str, names: list[str]) -> Iterator[bytes]:
    """Every record's line. Files that can be long are streamed; small ones are read in parallel."""
    small = [name for name in names if "-" in name]
    for name in [name for name in names if "-" not in name]:
        lines = _complete_lines(filesystem, posixpath.join(folder, name))
        if name.endswith(_GATHERED):
            next(lines)
        yield from lines
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(small), _OBJECTS):
            paths = [posixpath.join(folder, name) for name in small[start : start + _OBJECTS]]
            for lines_of_one in pool.map(lambda path: list(_complete_lines(filesystem, path)), paths):
                yield from lines_of_one


def _complete_lines(filesystem: pafs.FileSystem, path: str) -> Iterator[bytes]:
    """The lines of a file, without a last one that a kill cut off."""
    with filesystem.open_input_stream(path) as stream, io.BufferedReader(stream, 1 << 20) as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield line


def _delete(filesystem: pafs.FileSystem, folder: str, names: list[str]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(filesystem.delete_file, [posixpath.join(folder, name) for name in names]))


def _sync(path: str) -> None:
    """Flushes a file or a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
