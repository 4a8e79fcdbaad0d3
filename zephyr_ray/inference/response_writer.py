"""Writes a driver's replies: none is lost if the driver is killed, or paused and taken over (`response_log`)."""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
from collections.abc import Sequence
from typing import Any

import pyarrow.fs as pafs

from zephyr_ray.inference import response_log


class Writer:
    """Writes a driver's records; they are durable when a call returns. Creates no file before the first call."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, epoch: int = 0):
        self._filesystem, self._folder, self._epoch = filesystem, folder, epoch
        self._is_local = isinstance(filesystem, pafs.LocalFileSystem)
        self._stem = response_log.unique_stem(epoch)
        self._file: Any = None
        self._end = self._opened = self._objects = 0

    def __call__(self, lines: Sequence[bytes]) -> tuple[str, int]:
        """Writes lines, each with its line feed; returns the name of their file and where in it they start.

        Raises:
            OSError: They are not written, or not all of them.
        """
        data = b"".join(lines)
        if self._is_local:
            return self._append(data)
        return self._write_object(data)

    def _append(self, data: bytes) -> tuple[str, int]:
        repeats: list[tuple[str, int]] = []
        while True:
            if self._file is None:
                self._open()
            name = posixpath.basename(self._file.name)
            header = b""
            if repeats:
                said = {"repeats": repeats, "bytes": len(data), "number": self._opened}
                header = json.dumps(said).encode() + b"\n"
            start = self._end + len(header)
            error = self._write_durably(header + data)
            if self._keeps_its_name():
                if error is not None:
                    self._close()  # its end may be cut, and another line must not continue it
                    raise error
                self._end = start + len(data)
                return name, start
            repeats.append((name, start))
            self._close()

    def _open(self) -> None:
        os.makedirs(self._folder, exist_ok=True)
        path = posixpath.join(self._folder, f"{response_log.unique_stem(self._epoch)}.jsonl")
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 (open until the actor ends)
        self._end = 0
        self._opened += 1
        response_log.sync(self._folder)

    def _write_durably(self, data: bytes) -> OSError | None:
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            return error
        return None

    def _keeps_its_name(self) -> bool:
        """Whether the file has not been sealed. It is opened for that: a name alone may be a cached one on NFS."""
        try:
            descriptor = os.open(self._file.name, os.O_RDONLY)
        except OSError:
            return False
        try:
            return os.path.sameopenfile(descriptor, self._file.fileno())
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._file = None

    def _write_object(self, data: bytes) -> tuple[str, int]:
        if not self._objects:
            self._filesystem.create_dir(self._folder, recursive=True)
        name = f"{self._stem}-{self._objects:08d}.jsonl"
        self._objects += 1  # never overwrites an object that was stored but reported as failed
        with self._filesystem.open_output_stream(posixpath.join(self._folder, name)) as stream:
            stream.write(data)
        return name, 0
