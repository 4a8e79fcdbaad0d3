"""The files of a ledger: a try appends its replies to its own, and the next one finds those of all tries in one.

<n>.jsonl, or <n>-<count>.jsonl where a file cannot be appended to     what try n was given, one JSON object a line
<n>.jsonl.zst                                                          what the tries up to n were given
"""

from __future__ import annotations

import io
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.fs as pafs

_NUMBER = re.compile(r"\d+")
_WHOLE = ".jsonl.zst"


def merge(filesystem: pafs.FileSystem, folder: str) -> str | None:
    """Makes one compressed file of all there are, and returns its path; None where there are none.

    The file is whole before the others go; what a kill in between leaves of them is not read a second time.
    """
    infos = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    names = sorted((info.base_name for info in infos if info.base_name.endswith((".jsonl", _WHOLE))), key=_order)
    last_whole = max((place for place, name in enumerate(names) if name.endswith(_WHOLE)), default=0)
    _delete(filesystem, folder, names[:last_whole])
    parts = names[last_whole:]
    if not parts:
        return None
    whole = f"{number_of(parts[-1]):03d}{_WHOLE}"
    path = posixpath.join(folder, whole)
    if parts != [whole]:
        with filesystem.open_output_stream(f"{path}.partial", compression="zstd") as stream:
            for name in parts:
                for line in _complete_lines(filesystem, posixpath.join(folder, name)):
                    stream.write(line)
        filesystem.move(f"{path}.partial", path)
        _delete(filesystem, folder, parts)
    return path


def read(filesystem: pafs.FileSystem, path: str) -> Iterator[dict[str, Any]]:
    """The records of one file."""
    for line in _complete_lines(filesystem, path):
        yield json.loads(line)


def number_of(path: str) -> int:
    """The try that wrote the file, or the last of those that it is made of."""
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
        while data:
            data = data[self._file.write(data) :]

    def _write_object(self, data: bytes) -> None:
        with self._filesystem.open_output_stream(f"{self._prefix}-{self._objects:08d}.jsonl") as stream:
            stream.write(data)
        self._objects += 1

    @property
    def _prefix(self) -> str:
        return posixpath.join(self._folder, f"{self._number:03d}")


def _order(name: str) -> tuple[int, bool, str]:
    """By try; what is made of a try's files after these."""
    return number_of(name), name.endswith(_WHOLE), name


def _delete(filesystem: pafs.FileSystem, folder: str, names: list[str]) -> None:
    for name in names:
        filesystem.delete_file(posixpath.join(folder, name))


def _complete_lines(filesystem: pafs.FileSystem, path: str) -> Iterator[bytes]:
    """A kill may have cut the last one off."""
    with filesystem.open_input_stream(path) as stream, io.BufferedReader(stream, 1 << 20) as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield line
