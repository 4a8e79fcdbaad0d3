"""Ledger of a stage's replies in <artifact>/replies: no reply is paid for twice, and a budget is kept.

There is one actor per stage, on the driver's node. A reply counts once it is written here. If a worker or the job dies
later, the next run finds it, and sends only requests that were in flight a second time. A reply's key is its request,
so a changed recipe finds the replies it still needs: none is ever deleted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import posixpath
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.fs as pafs

from zephyr_ray.inference import response_log, response_writer
from zephyr_ray.inference.response_gather import gather
from zephyr_ray.inference.response_index import Index
from zephyr_ray.inference.response_log import Pass
from zephyr_ray.pipeline.artifacts import REPLIES, Artifact

_COMMIT_S = 0.5  # between two objects, in a store where files cannot be appended to
_GATHER_S = 0.02  # how long a worker's replies wait for each other; short against the seconds of a request
_QUIET_S = 600.0  # without any reply, after which a reservation counts as that of a dead worker
_LOOK_UPS = 4  # at once
_logger = logging.getLogger(__name__)


class Ledger:
    """The replies of a stage and their cost, over all runs and recipes so far.

    Memory use stays constant. What earlier drivers left is gathered at first; the start reads of gathered replies only
    their index and their totals.
    """

    def __init__(self, artifact: Artifact, budget_usd: float | None = None):
        """
        Args:
            artifact: The stage's, prepared by `begin`.
            budget_usd: Limit on the cost of all replies together.
        """
        self._budget, self._held = budget_usd, 0.0
        self._changed = asyncio.Condition()
        filesystem, folder = artifact.run.filesystem, posixpath.join(artifact.path, REPLIES)
        gather(filesystem, folder, artifact.epoch)
        self._totals = response_log.no_totals()
        self._index = Index(filesystem, folder)
        self._load(filesystem, folder)
        self._write = response_writer.Writer(filesystem, folder, artifact.epoch)
        self._waiting: list[tuple[list[dict[str, Any]], list[bytes], asyncio.Future[None]]] = []
        self._committer: asyncio.Task[None] | None = None
        self._wait = 0.0 if isinstance(filesystem, pafs.LocalFileSystem) else _COMMIT_S
        self._writing, self._looking = ThreadPoolExecutor(1), ThreadPoolExecutor(_LOOK_UPS)

    async def replies(self, prompt_ids: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """The known completions of each row, by request key. Rows without one are left out."""
        return await asyncio.get_running_loop().run_in_executor(self._looking, self._index.find, prompt_ids)

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

        Raises:
            OSError: They are not written.
            ValueError: A record lacks its prompt_id, key or answer; none is written.
        """
        try:
            if not all(map(response_log.is_record, records)):
                raise ValueError("a record lacks its prompt_id, key or answer")
            lines = [json.dumps(record).encode() + b"\n" for record in records]
            written = asyncio.get_running_loop().create_future()
            self._waiting.append((records, lines, written))
            if self._committer is None:
                self._committer = asyncio.create_task(self._commit())
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
        """Writes what waits, all at once, until nothing waits."""
        try:
            while self._waiting:
                await asyncio.sleep(self._wait)
                batch, self._waiting = self._waiting, []
                await self._commit_batch(batch)
        finally:
            self._committer = None

    async def _commit_batch(self, batch: list[tuple[list[dict[str, Any]], list[bytes], asyncio.Future[None]]]) -> None:
        """Writes records, and tells everyone who waits for them."""
        records = [record for records, _, _ in batch for record in records]
        lines = [line for _, lines, _ in batch for line in lines]
        error: BaseException | None = RuntimeError("the ledger was stopped before the replies were written")
        try:
            await asyncio.get_running_loop().run_in_executor(self._writing, self._write_indexed, records, lines)
            error = None
            for record in records:
                response_log.count(self._totals, record)
        except Exception as failed:  # whatever it is, it is passed to those who wait
            error = failed
        finally:
            _settle([written for _, _, written in batch], error)

    def _write_indexed(self, records: list[dict[str, Any]], lines: list[bytes]) -> None:
        """Writes records; once they are written, nothing can fail."""
        name, offset = self._write(lines)
        places = []
        for record, line in zip(records, lines, strict=True):
            places.append((record["prompt_id"], offset, len(line)))
            offset += len(line)
        try:
            self._index.add(name, places)
        except sqlite3.Error as error:
            _logger.warning("%d replies are written, but not found before the next start: %s", len(records), error)

    def _load(self, filesystem: pafs.FileSystem, folder: str) -> None:
        """Reads totals and indexes of what is gathered, and the files of drivers with a higher epoch."""
        found = response_log.listing(filesystem, folder)
        for commit in found.commits:
            response_log.add_totals(self._totals, commit.totals)
        self._index.load(part for commit in found.commits for part in commit.parts)
        ordered = response_log.in_order(filesystem, folder, found.loose)
        for source, lines in Pass(filesystem, folder, found.read).files(ordered):
            places = []
            for offset, line in lines:
                record = response_log.parse(line)
                if record is not None:
                    response_log.count(self._totals, record)
                    places.append((record["prompt_id"], offset, len(line)))
            self._index.add(source.name, places)


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
        _settle([recorded for _, _, recorded in batch], error)


def _settle(waiting: Iterable[asyncio.Future[None]], error: BaseException | None) -> None:
    """Tells all who wait that their records are written, or why not."""
    for each in waiting:
        if each.done():  # the caller is gone
            continue
        if error is None:
            each.set_result(None)
        else:
            each.set_exception(error)
