"""Reads replies as they come -> <artifact>/replies, so that no reply is paid for twice; keeps to a budget.

One actor for a stage, beside the driver. A reply counts once it is written here: a worker or a whole job that dies
later finds it again, and only requests that were under way are sent a second time. A reply is known by its request, so
a recipe that is changed later has those that it still asks for: no reply is ever deleted.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
import sqlite3
from collections.abc import Collection
from typing import Any

import pyarrow.fs as pafs

from zephyr_ray.inference import response_log
from zephyr_ray.pipeline.artifacts import REPLIES, Artifact

_COMMIT_S = 0.5  # between two objects, where a file cannot be appended to
_GATHER_S = 0.02  # that a worker's replies wait for each other: little beside an answer's seconds
_QUIET_S = 600.0  # without a reply to any request, after which held money is nobody's: its worker is dead


class Ledger:
    """The replies to a stage, in this try and all before it, whatever the recipe was, and what they cost.

    Replies are looked up in a temporary database on disk, so memory stays flat.
    """

    def __init__(self, artifact: Artifact, budget_usd: float | None = None, done: Collection[str] = ()):
        """
        Args:
            artifact: The stage's, which `begin` has made ready.
            budget_usd: What all replies together may cost.
            done: Ids of rows that are written: their replies cost money but are not looked up again.
        """
        self._index = sqlite3.connect("", isolation_level=None)  # a file that goes with this process, whatever ends it
        self._index.execute("PRAGMA journal_mode=OFF")
        self._index.execute("PRAGMA synchronous=OFF")
        self._index.execute(
            "CREATE TABLE replies (prompt_id TEXT, key TEXT, answer TEXT, PRIMARY KEY (prompt_id, key))"
        )
        self._budget, self._held = budget_usd, 0.0
        self._changed = asyncio.Condition()
        self._totals = {"requests": 0, "prompt_tokens": 0, "tokens": 0, "usd": 0.0}
        filesystem, folder = artifact.run.filesystem, posixpath.join(artifact.path, REPLIES)
        skip = frozenset(done)
        for record in response_log.read(filesystem, folder):
            self._add(record, look_up=record["prompt_id"] not in skip)
        self._write = response_log.Writer(filesystem, folder)
        self._waiting: list[tuple[list[dict[str, Any]], asyncio.Future[None]]] = []
        self._committer: asyncio.Task[None] | None = None
        self._wait = 0.0 if isinstance(filesystem, pafs.LocalFileSystem) else _COMMIT_S

    async def replies(self, prompt_ids: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """For each of the rows, the answers that are there, by their request's key. Rows without one are left out."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for prompt_id in prompt_ids:
            rows = self._index.execute("SELECT key, answer FROM replies WHERE prompt_id = ?", (prompt_id,))
            answers = {key: json.loads(answer) for key, answer in rows}
            if answers:
                found[prompt_id] = answers
        return found

    async def reserve(self, usd: float) -> bool:
        """Holds money back for a request, or waits for it while others hold it that may not need it all.

        False once the request would go over the budget whatever becomes of the others.
        """
        while self._budget is not None and self._totals["usd"] + self._held + usd > self._budget:
            if self._totals["usd"] + usd > self._budget or not await self._change():
                return False
        self._held += usd
        return True

    async def release(self, usd: float) -> None:
        """Gives back what was held for requests that are over."""
        self._held -= usd
        async with self._changed:
            self._changed.notify_all()

    async def record(self, records: list[dict[str, Any]], reserved: float) -> None:
        """Writes replies: {prompt_id, key (of the request), answer, prompt_tokens, usd}. They are safe when this
        returns.

        Args:
            records: The replies.
            reserved: What was held back for all of them.
        """
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((records, written))
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit())
        try:
            await written
        finally:
            await self.release(reserved)

    async def totals(self) -> dict[str, float]:
        """Requests that were answered, tokens and US dollars, of all tries."""
        return dict(self._totals)

    async def _change(self) -> bool:
        """Waits until money is given back; False where nothing happens for long."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait(), _QUIET_S)
            except TimeoutError:
                return False
        return True

    async def _commit(self) -> None:
        """Writes what has gathered, in one go."""
        await asyncio.sleep(self._wait)
        batch, self._waiting, self._committer = self._waiting, [], None
        try:
            self._write([record for records, _ in batch for record in records])
        except OSError as error:
            for _, written in batch:
                written.set_exception(error)
            return
        for records, written in batch:
            for record in records:
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


class LedgerLink:
    """A worker's way to the ledger, for a few replies at a time: a call to an actor costs more than the writing."""

    def __init__(self, ledger: Any):
        """
        Args:
            ledger: Handle of the `Ledger` actor.
        """
        self._ledger = ledger
        self._waiting: list[tuple[dict[str, Any], float, asyncio.Future[None]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def replies(self, prompt_ids: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """As `Ledger.replies`."""
        found: dict[str, dict[str, dict[str, Any]]] = await self._ledger.replies.remote(prompt_ids)
        return found

    async def reserve(self, usd: float) -> bool:
        """As `Ledger.reserve`."""
        return bool(await self._ledger.reserve.remote(usd))

    async def release(self, usd: float) -> None:
        """As `Ledger.release`."""
        await self._ledger.release.remote(usd)

    async def record(self, record: dict[str, Any], reserved: float) -> None:
        """Has a reply written. It is safe when this returns."""
        recorded = asyncio.get_running_loop().create_future()
        self._waiting.append((record, reserved, recorded))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        await recorded

    async def _send(self) -> None:
        """Sends what has gathered; what goes wrong is told to everyone who waits for it."""
        await asyncio.sleep(_GATHER_S)
        batch, self._waiting, self._sender = self._waiting, [], None
        error: Exception | None = None
        try:
            await self._ledger.record.remote([record for record, _, _ in batch], sum(usd for _, usd, _ in batch))
        except Exception as failed:
            error = failed
        for _, _, recorded in batch:
            if recorded.done():  # whoever asked is gone
                continue
            if error is None:
                recorded.set_result(None)
            else:
                recorded.set_exception(error)
