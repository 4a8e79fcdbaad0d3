"""Starts the scripts of `runners/` in the Python that has their package, and reads their events."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zephyr_ray.errors import UserError

_RUNNERS = Path(__file__).parent / "runners"


def check_packages(python: str, packages: Sequence[str], option: str, install: str) -> None:
    """Checks that an interpreter has packages, without importing them.

    Args:
        python: The interpreter.
        packages: Names to import.
        option: The option that names the interpreter.
        install: The command that installs them.

    Raises:
        UserError: It cannot be run, or lacks one.
    """
    program = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n) is None])"
    try:
        done = subprocess.run([python, "-c", program, *packages], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"{option} {python} cannot be run: {error.strerror}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"{option} {python} is no Python: {last}")
    if missing := done.stdout.split():
        raise UserError(f"{python} has no {missing[0]}: {install}, or name another environment's Python with {option}")


def events(
    python: str, script: str, job: Mapping[str, Any], *, environment: Mapping[str, str], log: Path
) -> Iterator[dict[str, Any]]:
    """The events that a script prints, as they come.

    Args:
        python: The interpreter.
        script: Name of a file in `runners/`.
        job: What it reads; a secret goes into the environment.
        environment: Variables beside those of this process.
        log: File for all else that it says.

    Raises:
        UserError: The process ended with another status than 0.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file, log.open("w") as said:
        json.dump(job, file)
        file.flush()
        command = [python, str(_RUNNERS / script), file.name]
        variables = {**os.environ, **environment}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=variables) as process:
            try:
                for line in process.stdout or ():
                    yield json.loads(line)
            except BaseException:
                process.kill()
                raise
    if process.returncode:
        last = (log.read_text("utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"{script} ended with status {process.returncode}: {last} (all it said is in {log})")
