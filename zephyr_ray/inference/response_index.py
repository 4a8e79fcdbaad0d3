"""Where the replies to each row lie, and the replies themselves.

Places are in a temporary database on disk, so memory use stays constant. Replies stay in their files.
"""

from __future__ import annotations

import itertools
import json
import posixpath
import sqlite3
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from zephyr_ray.inference import response_log
from zephyr_ray.inference.response_gather import row_hash
from zephyr_ray.inference.response_log import PART

_DATABASE_BYTES = 64 << 20  # of the database that may be in memory
_CACHE_BYTES = 32 << 20  # of frames: rows that were asked for together lie together
_THREADS = 16

Place = tuple[str, int, int]
"""A file, an offset and a size in bytes."""


class Index:
    """Finds the replies to rows. Safe to use from several threads."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str):
        self._filesystem, self._folder = filesystem, folder
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # vanishes with the process
        for pragma in (
            "journal_mode=OFF",
            "synchronous=OFF",
            "temp_store=FILE",
            f"cache_size=-{_DATABASE_BYTES >> 10}",
        ):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE files (number INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        for table in ("gathered", "fresh"):
            self._database.execute(f"CREATE TABLE {table} (row INTEGER, file INTEGER, offset INTEGER, size INTEGER)")
        self._database.execute("CREATE INDEX fresh_row ON fresh (row)")
        self._mutex = threading.Lock()
        self._frames: OrderedDict[Place, bytes] = OrderedDict()
        self._frames_size = 0
        self._readers = ThreadPoolExecutor(_THREADS)

    def load(self, parts: Iterable[str]) -> None:
        """Adds the rows of all gathered parts; call it once."""
        self._database.execute("BEGIN")
        for part in parts:
            index = posixpath.join(self._folder, response_log.index_of(part))
            table = pq.read_table(index, filesystem=self._filesystem, partitioning=None)
            file = self._file(part)
            columns = [table[name].to_pylist() for name in ("row", "offset", "size")]
            rows = zip(columns[0], itertools.repeat(file), columns[1], columns[2], strict=False)
            self._database.executemany("INSERT INTO gathered VALUES (?, ?, ?, ?)", rows)
        self._database.execute("COMMIT")
        self._database.execute("CREATE INDEX gathered_row ON gathered (row)")  # sorts: faster than keeping it in order

    def add(self, file: str, places: Iterable[tuple[str, int, int]]) -> None:
        """Adds records of a file that is not gathered.

        Args:
            file: Its name.
            places: The prompt_id of each record, and the offset and size of its line in bytes.
        """
        with self._mutex:
            self._database.execute("BEGIN")
            number = self._file(file)
            rows = ((row_hash(prompt_id), number, offset, size) for prompt_id, offset, size in places)
            self._database.executemany("INSERT INTO fresh VALUES (?, ?, ?, ?)", rows)
            self._database.execute("COMMIT")

    def find(self, prompt_ids: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """The known completions of each row, by request key. Rows without one are left out."""
        places = {prompt_id: self._places(prompt_id) for prompt_id in dict.fromkeys(prompt_ids)}
        wanted = list(dict.fromkeys(place for each in places.values() for place in each))
        frames = dict(zip(wanted, self._readers.map(self._frame, wanted), strict=True))
        found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        for prompt_id, own in places.items():
            for place in own:
                for record in _records(frames[place], prompt_id):
                    found[prompt_id][record["key"]] = record["answer"]
        return dict(found)

    def _file(self, name: str) -> int:
        self._database.execute("INSERT OR IGNORE INTO files (name) VALUES (?)", (name,))
        found: tuple[int] = self._database.execute("SELECT number FROM files WHERE name = ?", (name,)).fetchone()
        return found[0]

    def _places(self, prompt_id: str) -> list[Place]:
        query = "SELECT name, offset, size FROM {table} JOIN files ON number = file WHERE row = ?"
        row = (row_hash(prompt_id),)
        with self._mutex:
            return [
                place
                for table in ("gathered", "fresh")
                for place in self._database.execute(query.format(table=table), row)
            ]

    def _frame(self, place: Place) -> bytes:
        """The lines at a place; none if another driver has gathered the file."""
        with self._mutex:
            if place in self._frames:
                self._frames.move_to_end(place)
                return self._frames[place]
        name, offset, size = place
        try:
            with self._filesystem.open_input_file(posixpath.join(self._folder, name)) as file:
                lines = file.read_at(size, offset)
        except FileNotFoundError:
            if name.endswith(PART):
                raise
            return b""
        if name.endswith(PART):
            lines = pa.CompressedInputStream(pa.BufferReader(lines), "zstd").read()
        self._keep(place, lines)
        return lines

    def _keep(self, place: Place, lines: bytes) -> None:
        with self._mutex:
            if place not in self._frames:
                self._frames[place] = lines
                self._frames_size += len(lines)
            while self._frames_size > _CACHE_BYTES:
                self._frames_size -= len(self._frames.popitem(last=False)[1])


def _records(lines: bytes, prompt_id: str) -> Iterable[dict[str, Any]]:
    """The records of a row in whole lines. Only those that contain its id are parsed."""
    needle = json.dumps(prompt_id).encode()
    found = lines.find(needle)
    while found >= 0:
        start, end = lines.rfind(b"\n", 0, found) + 1, lines.find(b"\n", found)
        record = response_log.parse(lines[start:end])
        if record is not None and record["prompt_id"] == prompt_id:
            yield record
        found = lines.find(needle, end)
