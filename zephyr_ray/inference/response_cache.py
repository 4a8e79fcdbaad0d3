"""Ledger of a stage's replies in <artifact>/replies: no reply is paid for twice, and a budget is kept.

There is one actor per stage, on the driver's node. A reply counts once it is written here. If a worker or the job dies
later, the next run finds it, and sends only requests that were in flight a second time. A reply's key is its request,
so a changed recipe finds the replies it still needs: none is ever deleted.
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

_COMMIT_S = 0.5  # between two objects, in a store where files cannot be appended to
_GATHER_S = 0.02  # how long a worker's replies wait for each other; short against the seconds of a request
_QUIET_S = 600.0  # without any reply, after which a reservation counts as that of a dead worker


class Ledger:
    """The replies of a stage and their cost, over all runs and recipes so far.

    Replies are looked up in a temporary database on disk, so memory use stays constant.
    """

    def __init__(self, artifact: Artifact, budget_usd: float | None = None, done: Collection[str] = ()):
        """
        Args:
            artifact: The stage's, prepared by `begin`.
            budget_usd: Limit on the cost of all replies together.
            done: Ids of rows already written: their replies count towards the cost but are not looked up again.
        """
        self._index = sqlite3.connect("", isolation_level=None)  # a temporary file that vanishes with this process
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
        """The known completions of each row, by request key. Rows without one are left out."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for prompt_id in prompt_ids:
            rows = self._index.execute("SELECT key, answer FROM replies WHERE prompt_id = ?", (prompt_id,))
            completions = {key: json.loads(answer) for key, answer in rows}
            if completions:
                found[prompt_id] = completions
        return found

    async def reserve(self, usd: float) -> bool:
        """Reserves money for a request; waits while other requests hold money that they may give back.

        Returns False once the request would exceed the budget whatever the others cost.
        """
        while self._budget is not None and self._totals["usd"] + self._held + usd > self._budget:
            if self._totals["usd"] + usd > self._budget or not await self._wait_for_release():
                return False
        self._held += usd
        return True

    async def release(self, usd: float) -> None:
        """Gives back the reservation of finished requests."""
        self._held -= usd
        async with self._changed:
            self._changed.notify_all()

    async def record(self, records: list[dict[str, Any]], reserved: float) -> None:
        """Writes replies; they are durable when this returns.

        Args:
            records: {prompt_id, key (of the request), answer (the completion), prompt_tokens, usd} of each reply.
            reserved: The money reserved for all of them.
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
        """Requests that got a reply, tokens and US dollars, over all runs."""
        return dict(self._totals)

    async def _wait_for_release(self) -> bool:
        """Waits until money is given back; returns False after a long time without any."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait(), _QUIET_S)
            except TimeoutError:
                return False
        return True

    async def _commit(self) -> None:
        """Writes all waiting records at once."""
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
            if not written.done():  # done: the caller is gone
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
    """A worker's client of the ledger. It batches replies, because an actor call costs more than a write."""

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
        """Has a reply written; it is durable when this returns."""
        recorded = asyncio.get_running_loop().create_future()
        self._waiting.append((record, reserved, recorded))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        await recorded

    async def _send(self) -> None:
        """Sends all waiting records; an error is passed to everyone who waits for one of them."""
        await asyncio.sleep(_GATHER_S)
        batch, self._waiting, self._sender = self._waiting, [], None
        error: Exception | None = None
        try:
            await self._ledger.record.remote([record for record, _, _ in batch], sum(usd for _, usd, _ in batch))
        except Exception as failed:
            error = failed
        for _, _, recorded in batch:
            if recorded.done():  # the caller is gone
                continue
            if error is None:
                recorded.set_result(None)
            else:
                recorded.set_exception(error)
