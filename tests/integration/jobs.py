"""Drives the jobs as a user does, by their command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from zephyr_ray.cluster import fork_server, preload

REPO = Path(__file__).parents[2]
LIBRARIES = (preload.ROWS + preload.TRAINING + preload.ENGINES).libraries
"""What any job's workers load that does not import Ray."""
_TIMEOUT_S = 420


@contextlib.contextmanager
def started_fork_server(
    environment: Mapping[str, str], libraries: Sequence[str], on_ray: Sequence[str] = ()
) -> Iterator[str]:
    """A fork server for workers that have these variables; yields its socket."""
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.delenv(fork_server.VARIABLE, raising=False)
            socket = stack.enter_context(fork_server.started(libraries, on_ray))
        yield socket


def forked_by(socket: str) -> dict[str, Any]:
    """The runtime_env of a job whose workers, on any node of this machine, come from that fork server."""
    return {"py_executable": fork_server.client(socket)}


def command(
    job: str,
    root: Path,
    *overrides: str,
    recipes: tuple[str, ...] = ("recipes/tiny.yaml",),
    options: tuple[str, ...] = (),
) -> list[str]:
    parts = [sys.executable, f"jobs/{job}.py", *options]
    for recipe in recipes:
        parts += ["--recipe", recipe]
    for override in (f"run.root={root}", *overrides):
        parts += ["--set", override]
    return parts


def run_job(job: str, root: Path, *overrides: str, expect: int = 0, timeout: int = _TIMEOUT_S, **options: Any) -> str:
    """Runs a job to its end, checks its exit status and returns what a person saw."""
    done = subprocess.run(
        command(job, root, *overrides, **options), cwd=REPO, capture_output=True, text=True, timeout=timeout
    )
    seen = done.stdout + done.stderr
    assert done.returncode == expect, f"status {done.returncode}, not {expect}:\n{seen}\n{log_tail(root)}"
    return seen


def kill_and_finish(
    job: str,
    root: Path,
    *overrides: str,
    when: Callable[[], bool],
    victim: str | None = None,
    sent: signal.Signals = signal.SIGKILL,
    with_children: bool = False,
    options: tuple[str, ...] = (),
) -> tuple[int, str]:
    """Runs a job, sends a signal once `when` holds, and waits for its end.

    Args:
        victim: Part of the command line of the process that gets it; the job's own process by default.
        sent: The signal.
        with_children: The job's own process does not get it alone, but all that came of it too, which else go on for
            seconds.
        options: What comes before the recipe on the command line.

    Returns:
        The job's exit status and what a person saw.
    """
    begun = time.time()
    process = subprocess.Popen(
        command(job, root, *overrides, options=options),
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + _TIMEOUT_S
    try:
        while not when():
            assert process.poll() is None, (
                f"ended before it could be killed:\n{process.communicate()[0]}{log_tail(root)}"
            )
            assert time.monotonic() < deadline, "the moment to kill never came"
            time.sleep(0.2)
        if victim is None:
            family = [child for child in _started_since(begun) if child.pid != process.pid] if with_children else []
            process.send_signal(sent)
            for child in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.send_signal(sent)
            psutil.wait_procs(family, timeout=30)
        else:
            os.kill(_find(_started_since(begun), victim), sent)
        seen, _ = process.communicate(timeout=_TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.kill()
    return process.returncode, seen


def manifest(root: Path, stage: str) -> dict[str, Any]:
    return json.loads((root / stage / "manifest.json").read_text())


def metrics(root: Path, stage: str) -> list[dict[str, float]]:
    lines = (root / stage / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


def copy_run(source: Path, target: Path, *without: str) -> Path:
    """A copy of a run's finished stages, without some of them."""
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*without, "logs"))
    return target


def log_tail(root: Path) -> str:
    logs = sorted((root / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime)
    return logs[-1].read_text(errors="replace")[-6000:] if logs else ""


def _started_since(begun: float) -> list[psutil.Process]:
    """What came of this test since then: a job's workers are no children of the job's, but of a fork server's."""
    family = psutil.Process().children(recursive=True)
    return [process for process in family if process.is_running() and process.create_time() >= begun - 0.02]


def command_lines(processes: Iterable[psutil.Process]) -> Iterator[tuple[psutil.Process, str]]:
    """The processes that still run, each with its command line."""
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has just ended
            yield process, " ".join(process.cmdline())


def _find(processes: list[psutil.Process], part: str) -> int:
    found = [process.pid for process, line in command_lines(processes) if part in line]
    assert found, f"no process with {part} in its command line"
    return found[-1]
