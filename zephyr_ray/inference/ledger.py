"""Reads replies as they come -> <artifact>/replies/*.jsonl, so that no reply is paid for twice; keeps to a budget.

One actor for a stage, beside the driver. A reply counts once it is written here: a worker or a whole job that dies
later finds it again, and only requests that were under way are sent a second time. The replies of a finished stage are
in its rows; the ledger goes when the stage ends.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
import re
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import pyarrow.fs as pafs

from zephyr_ray.artifacts import Artifact

FOLDER = "replies"
_NUMBER = re.compile(r"\d+")
_COMMIT_S = 0.5  # between two objects, where a file cannot be appended to


class Ledger:
    """The replies of a stage, in this try and those before it, and what they cost.

    Replies are looked up in a temporary database on disk, so memory stays flat.
    """

    def __init__(self, artifact: Artifact, budget_usd: float | None = None, done: Collection[str] = ()):
        """
        Args:
            artifact: The stage's, which `begin` has made ready.
            budget_usd: What all replies together may cost.
            done: Ids of rows that are written: their replies cost money but are not looked up again.
        """
        self._file = tempfile.NamedTemporaryFile(prefix="zephyr-ray-ledger-")  # noqa: SIM115 (lives as long as this)
        self._index = sqlite3.connect(self._file.name, isolation_level=None)
        self._index.execute("PRAGMA journal_mode=OFF")
        self._index.execute("PRAGMA synchronous=OFF")
        self._index.execute(
            "CREATE TABLE replies (prompt_id TEXT, key TEXT, answer TEXT, PRIMARY KEY (prompt_id, key))"
        )
        self._budget, self._held = budget_usd, 0.0
        self._totals = {"requests": 0, "prompt_tokens": 0, "tokens": 0, "usd": 0.0}
        folder = posixpath.join(artifact.path, FOLDER)
        filesystem = artifact.run.filesystem
        filesystem.create_dir(folder, recursive=True)
        names = _segments(filesystem, folder)
        skip = frozenset(done)
        for name in names:
            for record in read_segment(filesystem, name):
                self._add(record, look_up=record["prompt_id"] not in skip)
        number = 1 + max((int(_NUMBER.findall(posixpath.basename(name))[0]) for name in names), default=0)
        self._write = _writer(filesystem, posixpath.join(folder, f"{number:03d}"))
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[None]]] = []
        self._committer: asyncio.Task[None] | None = None
        self._wait = 0.0 if isinstance(filesystem, pafs.LocalFileSystem) else _COMMIT_S

    async def replies(self, prompt_ids: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """For each of the rows, the answers that are there, by key. Rows without one are left out."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for prompt_id in prompt_ids:
            rows = self._index.execute("SELECT key, answer FROM replies WHERE prompt_id = ?", (prompt_id,))
            answers = {key: json.loads(answer) for key, answer in rows}
            if answers:
                found[prompt_id] = answers
        return found

    async def reserve(self, usd: float) -> bool:
        """Holds money back for a request; False where that would go over the budget."""
        if self._budget is not None and self._totals["usd"] + self._held + usd > self._budget:
            return False
        self._held += usd
        return True

    async def release(self, usd: float) -> None:
        """Gives back what was held for a request that got no reply."""
        self._held -= usd

    async def record(self, record: dict[str, Any], reserved: float) -> None:
        """Writes a reply: {prompt_id, key, answer, prompt_tokens, usd}. It is safe when this returns."""
        self._held -= reserved
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((record, written))
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit())
        await written

    async def totals(self) -> dict[str, float]:
        """Requests that were answered, tokens and US dollars, of all tries."""
        return dict(self._totals)

    async def _commit(self) -> None:
        """Writes what has gathered, in one go."""
        await asyncio.sleep(self._wait)
        batch, self._waiting, self._committer = self._waiting, [], None
        try:
            self._write([record for record, _ in batch])
        except OSError as error:
            for _, written in batch:
                written.set_exception(error)
            return
        for record, written in batch:
            self._add(record, look_up=True)
            if not written.done():  # done: whoever asked is gone
                written.set_result(None)

    def _add(self, record: dict[str, Any], *, look_up: bool) -> None:
        self._totals["requests"] += 1
        self._totals["prompt_tokens"] += record["prompt_tokens"] or 0
        self._totals["tokens"] += record["answer"]["tokens"] or 0
        self._totals["usd"] += record["usd"]
        if look_up:
            row = (record["prompt_id"], record["key"], json.dumps(record["answer"]))
            self._index.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", row)


def read_segment(filesystem: pafs.FileSystem, path: str) -> Iterator[dict[str, Any]]:
    """The records of one file; the last line may have been cut off by a kill."""
    with filesystem.open_input_stream(path) as stream:
        text = stream.read()
    for line in text.split(b"\n")[:-1]:
        if line:
            yield json.loads(line)


def _segments(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    infos = filesystem.get_file_info(pafs.FileSelector(folder))
    return sorted(info.path for info in infos if info.path.endswith(".jsonl"))


def _writer(filesystem: pafs.FileSystem, prefix: str) -> Callable[[Iterable[dict[str, Any]]], None]:
    """Appends records to one file where that can be done, and writes an object for each batch where not."""
    if isinstance(filesystem, pafs.LocalFileSystem):
        file = open(f"{prefix}.jsonl", "ab", buffering=0)  # noqa: SIM115 (open until the actor ends)
        return lambda records: _write_all(file, _lines(records))
    count = 0

    def write_object(records: Iterable[dict[str, Any]]) -> None:
        nonlocal count
        with filesystem.open_output_stream(f"{prefix}-{count:08d}.jsonl") as stream:
            stream.write(_lines(records))
        count += 1

    return write_object


def _write_all(file: Any, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


def _lines(records: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)
