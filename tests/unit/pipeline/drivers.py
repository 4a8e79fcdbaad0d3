"""Drivers of one run that are stopped before any of their operations on storage, for as long as a test likes.

Each runs in a thread, which waits for its turn before each operation. A lease may be taken over at any time: all that
the drivers do must be safe without any clock.
"""

from __future__ import annotations

import json
import posixpath
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import artifacts, lease, move_aside, register
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.folder import Folder
from zephyr_ray.pipeline.register import Register

STAGE, ROWS, ROWS_PER_FILE = "candidates", range(6), 2
_TURN_S = 30.0  # more than any operation takes
_OPERATIONS = (
    (register, "put_new"),
    (register, "_get"),
    (register, "_delete"),
    (Register, "_numbers"),
    (artifacts, "write_bytes"),
    (Folder, "read_json"),
    (Folder, "names"),
    (Folder, "delete"),
    (Folder, "link"),
    (move_aside, "_move"),
)
_here = threading.local()


class KilledError(BaseException):
    """Ends a driver between two operations."""


class Driver:
    """A driver that brings the stage up to date with a recipe, one operation at a time."""

    def __init__(self, root: str, fingerprint: str):
        self.root, self.fingerprint = root, fingerprint
        self.outcome: str | None = None
        """`finished`, `taken over` or `killed`, at its end."""
        self.epoch = 0
        self.error: BaseException | None = None
        self._go, self._stopped, self._kill = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._stopped.wait(_TURN_S)

    def step(self) -> bool:
        """Lets it do one operation; returns False if it has ended."""
        if self.outcome is None:
            self._stopped.clear()
            self._go.set()
            assert self._stopped.wait(_TURN_S), "an operation did not come to its end"
            if self.error is not None:
                raise self.error
        return self.outcome is None

    def kill(self) -> None:
        """Ends it before its next operation."""
        self._kill = True
        while self.step():
            continue

    def gate(self) -> None:
        self._stopped.set()
        self._go.wait()
        self._go.clear()
        if self._kill:
            raise KilledError

    def _run(self) -> None:
        _here.driver = self
        try:
            self.gate()
            make(self)
            self.outcome = "finished"
        except UserError:
            self.outcome = "taken over"
        except KilledError:
            self.outcome = "killed"
        except BaseException as error:
            self.outcome, self.error = "failed", error
        finally:
            self._stopped.set()


def make(driver: Driver) -> None:
    """What `runner` does of one stage, with files of row numbers."""
    run = Run(driver.root)
    taken = lease._take(run, Register(run.root, lease.FOLDER), 60.0, True, lambda line: None)
    run.epoch = driver.epoch = taken.value["epoch"]
    artifact = run.artifact(STAGE)
    move_aside.finish_move(artifact)
    if artifact.is_finished(driver.fingerprint):
        return
    record = artifact.record() or {}
    if record.get("fingerprint") not in (None, driver.fingerprint):
        move_aside.move_aside(artifact)
    try:
        artifact.begin(driver.fingerprint)
    except ValueError:  # finished since it was looked for, by a driver that was taken over
        raise UserError("start this one again") from None
    files = {name: rows_in(artifact, name) for name in artifact.adopted}
    left = [row for row in ROWS if row not in {row for rows in files.values() for row in rows}]
    run.filesystem.create_dir(posixpath.join(artifact.path, "data"), recursive=True)
    for number, start in enumerate(range(0, len(left), ROWS_PER_FILE)):
        artifact.check_current()
        rows, name = left[start : start + ROWS_PER_FILE], artifact.new_name(f"data/{number:06d}-000.parquet")
        artifacts.write_bytes(run.filesystem, posixpath.join(artifact.path, name), json.dumps(rows).encode())
        files[name] = rows
    artifact.finish(
        {
            "fingerprint": driver.fingerprint,
            "files": [{"name": name, "rows": len(rows)} for name, rows in files.items()],
        }
    )


def rows_in(artifact: Artifact, name: str) -> list[int]:
    with artifact.run.filesystem.open_input_stream(posixpath.join(artifact.path, name)) as stream:
        return json.loads(stream.read())


@contextmanager
def one_operation_at_a_time() -> Iterator[None]:
    """Drivers wait before each operation while the block runs, and may take the lease over at any time."""

    def gated(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wait_and_do(*arguments: Any, **options: Any) -> Any:
            driver = getattr(_here, "driver", None)
            if driver is not None:
                driver.gate()
            return operation(*arguments, **options)

        return wait_and_do

    patches: list[Any] = [mock.patch.object(owner, name, gated(getattr(owner, name))) for owner, name in _OPERATIONS]
    patches.append(mock.patch.object(lease, "_wait_until_free", return_value=None))
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def check_whole(artifact: Artifact) -> None:
    """A reader sees nothing, or every row exactly once in files that are as long as the manifest says."""
    manifest = artifact.manifest()
    if manifest is None:
        return
    found = {entry.name: (entry.rows, rows_in(artifact, entry.name)) for entry in artifact.entries()}
    assert all(rows == len(numbers) for rows, numbers in found.values()), found
    assert sorted(row for _, numbers in found.values() for row in numbers) == list(ROWS), found


def all_finished(root: str) -> dict[int, str]:
    """The epochs and fingerprints of the artifact that counts and of those that were moved aside."""
    run = Run(root)
    import pyarrow.fs as pafs

    infos = run.filesystem.get_file_info(pafs.FileSelector(run.path, allow_not_found=True))
    stages = [info.base_name for info in infos if info.base_name.startswith(STAGE)]
    found = {}
    for stage in stages:
        artifact = run.artifact(stage)
        check_whole(artifact)
        if (manifest := artifact.manifest()) is not None:
            found[manifest["epoch"]] = manifest["fingerprint"]
    return found
