"""The lease of a run: one driver at a time makes its artifacts, and one that was paused cannot harm its successor.

A driver takes the lease before it makes anything, renews it while it works, and releases it at its end. Each holder has
an epoch, one higher than the last. What a driver writes carries its epoch, and of two drivers the one with the higher
epoch counts (`artifacts`). So the lease need not be exact about time: a driver that a debugger, a network partition or
an overloaded machine has stopped may lose it, wake up and go on writing, and none of that counts.

Time is measured on the observer's own monotonic clock, as "not renewed for so long": no two clocks are compared.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.register import Register, Version, check_conditional

FOLDER = "lease"
_RENEWALS = 6  # in the time after which a silent holder may be replaced, and at least one in ten seconds
_RENEWAL_S = 10.0
_WATCH_S = 15.0  # a command that finds a silent holder ends after so long
_CLOCK_STEP_S = 5  # by which the start of a process may seem to move
_logger = logging.getLogger(__name__)


class Lease:
    """A lease that this process holds. A thread renews it."""

    def __init__(self, run: Run, register: Register, version: Version):
        self.epoch: int = version.value["epoch"]
        self._run, self._register, self._version = run, register, version
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._successor: str | None = None
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell started the command in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        return self._successor is not None

    def check(self) -> None:
        """Renews the lease.

        Raises:
            UserError: Another command has taken it over.
        """
        self._renew()
        if self._successor is not None:
            raise self.loss()

    def loss(self) -> UserError:
        """The error that ends a command which has lost its lease."""
        return UserError(
            f"{self._run.root} was taken over by {self._successor}, because this command was silent for too long; "
            "nothing that it has finished is lost, and the other one goes on from there"
        )

    def release(self) -> None:
        """Ends the lease, so that the next command need not wait."""
        self._stop.set()
        self._thread.join()
        try:
            self._renew(released=True)
        except Exception as error:  # any store's; the next command waits until the lease is old
            _logger.warning("the lease of %s cannot be released: %s", self._run.root, error)

    def _keep_renewing(self) -> None:
        while not self._stop.wait(min(self._version.value["seconds"] / _RENEWALS, _RENEWAL_S)):
            try:
                self._renew()
            except Exception as error:  # any store's: as long as nobody takes the run over, the work may go on
                _logger.warning("the lease of %s cannot be renewed: %s", self._run.root, error)
            if self.is_lost:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    def _renew(self, **changes: Any) -> None:
        with self._mutex:
            if self._successor is not None:
                return
            renewed = self._register.replace(self._version, {**self._version.value, **changes})
            if renewed is None:
                renewed = self._own_version()
            if renewed is not None:
                self._version = renewed

    def _own_version(self) -> Version | None:
        """The version that counts, if it is this process's own: a renewal whose answer was lost."""
        found = self._register.read()
        if found is not None and found.value.get("token") == self._version.value["token"]:
            return found
        self._successor = describe(found) if found else "somebody who deleted the lease"
        return None


@contextlib.contextmanager
def held(run: Run, seconds: float, *, take_over: bool = False, say: Callable[[str], None]) -> Iterator[Lease]:
    """Holds the lease of a run while the block runs.

    Args:
        run: Its `epoch` is the lease's from now on.
        seconds: Time without a renewal after which `take_over` takes the run from its holder.
        take_over: Whether to take the run from a holder that does not renew its lease.
        say: Shows a person a line.

    Raises:
        UserError: Another command holds it, or took it over while the block ran; or the store has no conditional
            writes.
    """
    check_conditional(run.root)
    register = Register(run.root, FOLDER)
    lease = Lease(run, register, _take(run, register, seconds, take_over, say))
    run.epoch = lease.epoch
    try:
        yield lease
    except BaseException:
        if lease.is_lost:
            raise lease.loss() from None
        raise
    finally:
        lease.release()


def without(run: Run) -> None:
    """Gives a run the next epoch without a lease: nothing keeps other commands from it."""
    run.epoch = 1 + max(run.highest_epoch(), _epoch(Register(run.root, FOLDER).read()))


def _take(run: Run, register: Register, seconds: float, take_over: bool, say: Callable[[str], None]) -> Version:
    mine = _this_process(seconds)
    while True:
        found = register.read()
        if found is not None:
            _wait_until_free(run, register, found, take_over, say)
        epoch = 1 + max(_epoch(found), 0 if found else run.highest_epoch())
        taken = register.replace(found, {**mine, "epoch": epoch})
        if taken is not None:
            return taken


def _wait_until_free(run: Run, register: Register, found: Version, take_over: bool, say: Callable[[str], None]) -> None:
    """Returns once a lease may be replaced.

    Raises:
        UserError: Its holder is at work, or is silent and `take_over` is not set.
    """
    value = found.value
    _check_is_lease(register, value)
    if value["released"] or _is_gone(value):
        return
    patience = value["seconds"] if take_over else min(value["seconds"] / 4, _WATCH_S)
    if take_over:
        say(f"waiting {patience:g} s for a sign of life of {describe(found)}")
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        time.sleep(min(value["seconds"] / 20, 1.0))
        now = register.read()
        if now is None or now.number != found.number:
            if now is None or now.value["released"]:
                return
            raise UserError(
                f"{run.root} is held by {describe(now)}, which is at work; wait for its end, or give this command "
                "another root: --set run.root="
            )
    if not take_over:
        raise UserError(
            f"{run.root} is held by {describe(found)}, which has been silent for {patience:g} s; if it does not work "
            "any more, take the run over with --take-over"
        )


def describe(version: Version) -> str:
    """Names a lease's holder for a person."""
    value = version.value
    return (
        f"`{value['command']}` (process {value['pid']} of {value['user']} on {value['host']}, since {value['since']})"
    )


def _check_is_lease(register: Register, value: dict[str, Any]) -> None:
    kinds: dict[str, Any] = {"epoch": int, "seconds": (int, float), "released": bool, "token": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(value.get(name), kind)]
    if wrong:
        raise UserError(
            f"{register.uri} is no lease of a run ({', '.join(wrong)} missing or of a wrong type); look at it, and "
            "delete it if no other command uses this run"
        )


def _epoch(version: Version | None) -> int:
    return version.value["epoch"] if version else 0


def _this_process(seconds: float) -> dict[str, Any]:
    return {
        "token": os.urandom(8).hex(),
        "released": False,
        "seconds": seconds,
        "command": shlex.join([os.path.basename(sys.executable or "python"), *sys.argv])[:300],
        "user": psutil.Process().username(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": _process_id(os.getpid()),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }


def _process_id(pid: int) -> dict[str, Any] | None:
    """Identifies a process of this machine for as long as the machine runs; None if there is no such process."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return {"machine": _machine(), "pid": pid, "started": round(process.create_time())}
    except psutil.NoSuchProcess:
        return None


def _machine() -> list[str]:
    """Identifies this machine since it was started, and the container whose process ids these are."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return [boot, os.readlink("/proc/self/ns/pid"), socket.gethostname()]
    except OSError:  # not Linux
        return [str(round(psutil.boot_time())), "", socket.gethostname()]


def _is_gone(value: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that runs no more."""
    there = value.get("process")
    if not isinstance(there, dict) or there.get("machine") != _machine():
        return False
    found = _process_id(value["pid"])
    return found is None or abs(found["started"] - there["started"]) > _CLOCK_STEP_S
